import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { type Cistern, done, WAIT } from '../../servers/cistern.ts';
import { interleave, medianOf } from '../row.ts';

const WRITES = 20_000;
const BLOCK = 4096;
/** From one write to the next, modulo the 2 GiB of the disk: no common factor with its blocks, so no place comes twice. */
const STEP = BLOCK * 405_803;
/** A guest's file system flushes now and then, and the last flush is after the last write: what is measured is on the disk. */
const FLUSH = 5000;
const ROUNDS = 3;

interface Figures {
  iops: number;
  mib: number;
}

/** Scattered first writes of 4 KiB into a fresh clone of ours and into one made with qemu-img's default options, and what they take. */
export async function firstWrites(house: Cistern, backing: string, folder: string): Promise<{ ours: Figures; plain: Figures }> {
  const space = { ours: [] as number[], plain: [] as number[] };
  let n = 0;
  const measure = async (kind: 'ours' | 'plain', path: string): Promise<number> => {
    await execa('sync'); // what others wrote is not to be waited for in the measured time
    const before = (await stat(path)).blocks * 512;
    const args = [
      'bench',
      '-w',
      '-f',
      'qcow2',
      '-t',
      'writeback',
      '-d',
      '1',
      '-c',
      String(WRITES),
      '-s',
      String(BLOCK),
      '-S',
      String(STEP),
      `--flush-interval=${FLUSH}`,
      '--',
      path,
    ];
    const { stdout } = await execa('qemu-img', args, { env: { LC_ALL: 'C' } });
    space[kind].push(((await stat(path)).blocks * 512 - before) / 2 ** 20);
    return WRITES / Number(/completed in ([\d.]+) seconds/.exec(stdout)![1]);
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
  return {
    ours: { iops: medianOf(iops.ours), mib: medianOf(space.ours) },
    plain: { iops: medianOf(iops.plain), mib: medianOf(space.plain) },
  };
}
