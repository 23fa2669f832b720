import assert from 'node:assert/strict';
import { symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inspectImage } from '../../agent/host/inspect.ts';
import {
  add,
  all,
  cut,
  eachIsRefused,
  exec,
  honestImages,
  MAX,
  mbr,
  text,
  VHDX_METADATA,
  type Base,
  type Hostile,
} from './hostile-images.ts';

/** What else qemu would open. */
const HOSTILE: Hostile[] = [
  { name: 'VHD', base: 'raw', change: text(0, 'conectix'), code: 'IMAGE_FORMAT_UNKNOWN' },
  { name: 'fixed VHD', base: 'raw', change: all(mbr, add('conectix'.padEnd(512, '\0'))), code: 'IMAGE_FORMAT_UNKNOWN' },
  {
    name: 'fixed VHD, declared raw',
    base: 'raw',
    change: add('conectix'.padEnd(512, '\0')),
    declared: 'raw',
    code: 'IMAGE_FORMAT_MISMATCH',
  },
  {
    name: 'QED with a partition table',
    base: 'raw',
    change: all(text(0, 'QED\0'), mbr),
    says: /it is qed/,
    code: 'IMAGE_FORMAT_UNKNOWN',
  },
  { name: 'LUKS', base: 'raw', change: text(0, 'LUKS\xba\xbe'), code: 'IMAGE_ENCRYPTED' },
  { name: 'QED, declared raw', base: 'raw', change: text(0, 'QED\0'), declared: 'raw', code: 'IMAGE_FORMAT_MISMATCH' },
  { name: 'noise', base: 'raw', change: b => b.fill('noise'), code: 'IMAGE_FORMAT_UNKNOWN' },
  { name: 'noise, declared qcow2', base: 'raw', change: b => b.fill('noise'), declared: 'qcow2', code: 'IMAGE_FORMAT_MISMATCH' },
  { name: 'nothing', base: 'raw', change: cut(0), declared: 'raw', code: 'IMAGE_TRUNCATED' },
];

describe('what is no image that we know is refused with its own code', () => {
  const honest = honestImages('qcow2', 'v2', 'x', 'vmdk', 'stream', 'vhdx', 'vdi');
  eachIsRefused(honest, HOSTILE);

  it('as are a link, a FIFO, a folder and what is not there: they are never read', async () => {
    await symlink(join(honest.dir, 'qcow2'), join(honest.dir, 'link'));
    await exec('mkfifo', [join(honest.dir, 'fifo')]);
    for (const name of ['link', 'fifo', '.', 'missing']) {
      await assert.rejects(
        inspectImage(join(honest.dir, name), { maxVirtualSize: MAX }),
        { name: 'CisternError', code: 'IO_ERROR' },
        name,
      );
    }
  });

  it('and no bytes crash the judge: each field of each header with wild values, each early end', async () => {
    const path = join(honest.dir, 'wild');
    let seed = 1;
    const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
    const hot = {
      qcow2: [0, 112],
      v2: [0, 72],
      x: [0, 112],
      vmdk: [0, 1024],
      stream: [0, 1024],
      vhdx: [VHDX_METADATA, VHDX_METADATA + 65600],
      vdi: [0, 640],
      raw: [0, 600],
    };
    for (const [base, [from, to]] of Object.entries(hot) as [Base, [number, number]][]) {
      for (let i = 0; i < 60; i++) {
        const bytes = honest.bytes(base).subarray(0, i % 3 === 0 ? random(to + 4096) + 1 : undefined);
        for (let change = 0; change < 1 + (i % 4); change++) {
          const at = Math.max(0, Math.min(bytes.length - 4, from + random(to - from)));
          if (bytes.length >= 4)
            bytes.writeUInt32LE([0, 1, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000, random(2 ** 31)][random(6)]!, at);
        }
        await writeFile(path, bytes);
        const error = await inspectImage(path, { maxVirtualSize: MAX }).then(
          () => undefined,
          (thrown: unknown) => thrown as { code?: string; stack?: string },
        );
        if (error) assert.match(error.code ?? '', /^IMAGE_/, `${base} ${i}: ${error.stack}`);
      }
    }
  });
});
