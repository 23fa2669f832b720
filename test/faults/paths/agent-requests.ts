/** What the agent is asked for: every command, on pools and stores that are there. */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import type { z } from 'zod';
import { COMMANDS } from '../../../shared/commands/index.ts';
import { newId } from '../../../shared/id.ts';
import { type Hints, valuesOf } from './hostile.ts';

/** Names that a user may give to a folder, and that are something else to a program. */
export const FOLDERS = [
  '-rf',
  '--help',
  '$(touch trap)',
  ';touch trap;',
  'json:{"driver":"nbd"}',
  'nbd:unix:socket',
  'two\nlines',
  'q\'uo"te\\s',
  ' ',
  '..\u2215..',
  '%2e%2e',
  'a,b=c',
];

export interface Ref {
  id: string;
  type: string;
  config: Record<string, unknown>;
}

export interface World {
  /** Local pools and `dir` stores; the folders of all but the first have hostile names. */
  pools: Ref[];
  stores: Ref[];
  sftp: Record<string, unknown>;
  image: { id: string; digest: string };
  /** It is in each pool. */
  volume: { id: string; layerId: string };
  /** A web server with images, without a slash at its end. */
  web: string;
  hostile: fc.Arbitrary<string>;
}

/** Secrets that are sent along: none of them may show in an argv. */
export const secret = `CANARY-${randomBytes(9).toString('hex')}`;

export interface Request {
  id: unknown;
  command: { kind: string; input: unknown };
}

/** One request for each kind of command, right in all. */
export function requests(world: World): fc.Arbitrary<Request>[] {
  const { image } = world;
  const [store] = world.stores as [Ref];
  const { id: volume, layerId } = world.volume;
  const elsewhere = newId();
  const ids = fc.constantFrom(image.id, image.id, newId());
  const volumeIds = fc.constantFrom(volume, volume, image.id, newId());
  const pools = fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...world.pools) },
    {
      weight: 1,
      arbitrary: fc.tuple(fc.constantFrom('127.0.0.1', '::1'), fc.constantFrom(...FOLDERS)).map(([server, name]) => ({
        id: elsewhere,
        type: 'nfs',
        config: { server, export: `/${name}`, version: '4.2', options: ['hard', 'timeo=10'] },
      })),
    },
  );
  const stores = fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...world.stores) },
    { weight: 1, arbitrary: fc.constant({ ...store, type: 'sftp', config: world.sftp }) },
    {
      weight: 1,
      arbitrary: fc.constant({ ...store, type: 'sftp', config: { ...world.sftp, privateKey: undefined, password: secret } }),
    },
  );
  const source = fc.oneof(
    fc
      .constantFrom('disk.raw', 'none.raw', '%2e%2e/disk.raw', '..%2fdisk.raw')
      .map(name => ({ type: 'url', url: `${world.web}/${name}` })),
    fc.constant({ type: 'upload', size: null }),
    fc.constantFrom(...world.stores).map(from => ({ type: 'object', store: from, path: `images/${image.id}/image.qcow2` })),
  );
  const hints: Hints = {
    pool: pools,
    store: stores,
    stores: fc.array(stores, { minLength: 1, maxLength: 2 }),
    source,
    sourceFormat: fc.constant(null),
    expectedSha256: fc.constant(null),
    bytesPerSecond: fc.constant(null),
    digest: fc.constant(image.digest),
    id: ids,
    layerId: fc.constant(layerId),
    volumeId: fc.constant(volume),
    volumeIds: fc.array(volumeIds, { minLength: 1, maxLength: 2 }),
    imageId: ids,
    volumes: fc.array(fc.record({ id: volumeIds, layerId: fc.constant(layerId) }), { minLength: 1, maxLength: 2 }),
    size: fc.constantFrom(null, 8 * 2 ** 20),
    backing: fc.constantFrom(null, { imageId: image.id, format: 'qcow2', virtualSize: 2 ** 21, digest: image.digest }),
  };
  return COMMANDS.map(({ kind, input }) =>
    valuesOf(input as z.ZodType, hints).map(value => ({ id: newId(), command: { kind, input: value } })),
  );
}
