import { readFile, readlink } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { startCistern } from '../../servers/cistern.ts';
import { descendants } from '../../servers/processes.ts';
import { ended } from '../ended.ts';
import type { Place } from './place.ts';

const SAMPLE_MS = 200;

/**
 * The most memory that an agent and its workers took together, in bytes, while an image of `place` was fetched into the cache of a
 * pool and a clone of it sent back; and the most that one worker took. Pages that the processes share count once (PSS, /proc/PID/smaps_rollup).
 */
export async function agentMemory(place: Place, object: string): Promise<{ together: number; largestWorker: number }> {
  await using cistern = await startCistern(`${place.folder}/cistern`);
  const { api } = cistern;
  const { host, port, user, hostKey, privateKey, path } = place.sshd;
  const pool = { name: 'pool', type: 'local', config: { path: cistern.dir('pool') } };
  const store = { name: 'store', type: 'sftp', config: { host, port, user, hostKey, privateKey, path } };
  const peak = { together: 0, largestWorker: 0 };
  let sampling = true;
  const sampled = (async () => {
    while (sampling) {
      const own = [cistern.agents[0]!.pid, ...(await descendants(cistern.agents[0]!.pid))];
      const sizes = await Promise.all(own.map(sizeOfNode));
      peak.together = Math.max(peak.together, sizes.reduce((sum, size) => sum + size, 0)); // prettier-ignore
      peak.largestWorker = Math.max(peak.largestWorker, ...sizes.slice(1));
      await delay(SAMPLE_MS);
    }
  })();
  try {
    await ended(api, api.addPrimaryStorage({ body: pool }));
    await ended(api, api.addBackupStorage({ body: store }));
    const source = { type: 'object', backupStorage: 'store', path: object } as const;
    await ended(api, api.importImage({ body: { name: 'image', sourceFormat: 'raw', source } }));
    await ended(api, api.addToCache({ body: { image: 'image', primaryStorage: 'pool' } }));
    await ended(api, api.createVolumes({ body: { name: 'clone', image: 'image' } }));
    await ended(api, api.uploadVolume({ params: { ref: 'clone' }, body: { name: 'back' } }));
  } finally {
    sampling = false;
    await sampled;
  }
  return peak;
}

/** PSS of a process that runs node; 0 for the programs that it starts, and for one that has ended. */
async function sizeOfNode(pid: number): Promise<number> {
  try {
    if ((await readlink(`/proc/${pid}/exe`)) !== process.execPath) return 0;
    return Number(/Pss:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}
