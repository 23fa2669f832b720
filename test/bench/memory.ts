/** The most memory that the worker of a pool takes with an image of 8 GiB, of which 1 GiB is data: in, cached, cloned, and out again. */
import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { ratioOf, type Row } from './row.ts';
import { agentMemory } from './sftp/memory.ts';
import { startPlace } from './sftp/place.ts';

const SIZE = 8 * 2 ** 30;
const EXTENT = 64 * 2 ** 20;
const EVERY = 8;
/** MiB. */
const LIMIT = 200;

export async function bench(): Promise<Row[]> {
  await using place = await startPlace();
  {
    await using file = await open(join(place.sshd.path, 'sparse.raw'), 'w');
    await file.truncate(SIZE);
    for (let at = 0; at < SIZE; at += EVERY * EXTENT) await file.write(randomBytes(EXTENT), 0, EXTENT, at);
    await file.sync();
  }
  const peak = (await agentMemory(place, 'sparse.raw')).largestWorker / 2 ** 20;
  return [
    {
      case: 'peak memory of a worker, 8 GiB sparse',
      unit: 'MiB',
      ours: peak,
      tool: 'limit',
      peer: LIMIT,
      ratio: ratioOf(peak, LIMIT, 'less'),
      reach: `< ${LIMIT}`,
    },
  ];
}
