import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { type Cistern, done, WAIT } from '../../servers/cistern.ts';
import { interleave, medianOf } from '../row.ts';

const WRITES = 20_000;
const BLOCK = 4096;
const ROUNDS = 3;

interface Figures {
  iops: number;
  mib: number;
}

/** Random first writes of 4 KiB into a fresh clone of ours and into one made with qemu-img's default options, and what they take. */
export async function firstWrites(house: Cistern, backing: string, folder: string): Promise<{ ours: Figures; plain: Figures }> {
  const offsets = distinctOffsets(10 * 2 ** 30);
  const space = { ours: [] as number[], plain: [] as number[] };
  let n = 0;
  const measure = async (kind: 'ours' | 'plain', path: string): Promise<number> => {
    const before = (await stat(path)).blocks * 512;
    const iops = await write(path, offsets);
    space[kind].push(((await stat(path)).blocks * 512 - before) / 2 ** 20);
    return iops;
  };
  const iops = await interleave(
    {
      async ours() {
        const name = `writes-${++n}`;
        await done(house.api.createVolumes({ body: { name, image: 'base' } }, WAIT));
        const { path } = await house.api.getVolume({ params: { ref: name } });
        return measure('ours', join(house.dir('pool'), path!));
      },
      async plain() {
        const path = join(folder, `plain-${++n}.qcow2`);
        await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', backing, '--', path]);
        return measure('plain', path);
      },
    },
    ROUNDS,
  );
  return { ours: { iops: medianOf(iops.ours), mib: medianOf(space.ours) }, plain: { iops: medianOf(iops.plain), mib: medianOf(space.plain) } };
}

/** One process of qemu-io writes all blocks; its start is not counted. Returns writes per second. */
async function write(path: string, offsets: number[]): Promise<number> {
  const qemu = execa('qemu-io', ['-f', 'qcow2', '-t', 'writeback', '--', path], { stdin: 'pipe', stdout: 'pipe' });
  const end = qemu.then(() => undefined);
  const ready = (word: string) =>
    new Promise<void>((resolve, reject) => {
      let tail = '';
      const look = (chunk: Buffer) => {
        tail = (tail + chunk.toString()).slice(-200);
        if (!tail.includes(word)) return;
        qemu.stdout.off('data', look);
        resolve();
      };
      qemu.stdout.on('data', look);
      end.catch(reject);
    });
  const opened = ready('open');
  qemu.stdin.write('info\n');
  await Promise.race([opened, ready('vm state')]).catch(() => undefined);
  const began = performance.now();
  qemu.stdin.write(offsets.map(offset => `aio_write -q -P 90 ${offset} ${BLOCK}\n`).join(''));
  qemu.stdin.end('aio_flush\nquit\n');
  await end;
  return offsets.length / ((performance.now() - began) / 1000);
}

/** The same pseudo-random places each time, none twice. */
function distinctOffsets(size: number): number[] {
  const chosen = new Set<number>();
  let x = 12345;
  while (chosen.size < WRITES) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    chosen.add(Math.floor((x / 2 ** 32) * (size / BLOCK)) * BLOCK);
  }
  return [...chosen];
}
