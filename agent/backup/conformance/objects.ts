import { randomBytes } from 'node:crypto';
import { type Case, must, mustFail } from './case.ts';

const OUTSIDE = ['../outside', '/outside', 'a/../../outside', 'a//b', ''];

export const objectCases: Case[] = [
  {
    name: 'overwrites a small object whole',
    run: async ({ store }) => {
      const [first, second] = [randomBytes(1000), randomBytes(10)];
      await store.write('small/object', first);
      must((await store.read('small/object', 1000)).equals(first), 'what came back is not what was written');
      await store.write('small/object', second);
      must((await store.read('small/object', 1000)).equals(second), 'what came back is not what was written last');
    },
  },
  {
    name: 'gives back no more of a small object than was asked for',
    run: async ({ store }) => {
      await store.write('small/object', Buffer.alloc(101));
      await mustFail('MANIFEST_INVALID', 'reading 101 bytes where 100 are allowed', () => store.read('small/object', 100));
    },
  },
  {
    name: 'says which object is missing',
    run: async ({ store }) => {
      await mustFail('OBJECT_MISSING', 'reading a small object that is not there', () => store.read('none/object', 100));
      await mustFail('OBJECT_MISSING', 'opening an object that is not there', () => store.source('none/object'));
      must((await store.list('none')).length === 0, 'a folder that is not there has names in it');
    },
  },
  {
    name: 'lists what is in a folder, and nothing else',
    run: async ({ store }) => {
      for (const path of ['a/one', 'a/two.three-four_five', 'a/deep/er', 'ab/none']) await store.write(path, Buffer.from('x'));
      const found = [...new Set(await store.list('a'))].sort().join(' ');
      must(found === 'deep one two.three-four_five', `it lists "${found}"`);
    },
  },
  {
    name: 'removes a folder with all that is below it, and nothing else',
    run: async ({ store }) => {
      for (const path of ['a/one', 'a/deep/er', 'ab/stays']) await store.write(path, Buffer.from('x'));
      await store.remove('a');
      await store.remove('a');
      must((await store.list('a')).length === 0, 'something is left in the folder');
      must((await store.list('ab')).join() === 'stays', 'what lies beside the folder is gone');
    },
  },
  {
    name: 'refuses paths that lead out of it',
    run: async ({ store }) => {
      for (const path of OUTSIDE) {
        await mustFail('BAD_REQUEST', `opening "${path}"`, () => store.source(path));
        await mustFail('BAD_REQUEST', `writing "${path}"`, () => store.write(path, Buffer.alloc(0)));
        await mustFail('BAD_REQUEST', `removing "${path}"`, () => store.remove(path));
      }
    },
  },
];
