/**
 * Moves a 2 GiB image to and from an OpenSSH server on loopback: ours (in a process of its own, as the agent's workers are, every part
 * verified) against scp, scp + sha256sum and rclone.
 *
 * Who waits for the disk: ours does, in the measured time (fsync of the file and its folder where a download arrives,
 * fsync@openssh.com where an upload does). scp and rclone do not wait. Before each run the disk is idle (sync, not measured).
 */
import { rm } from 'node:fs/promises';
import { execa } from 'execa';
import { newId } from '../../shared/id.ts';
import { interleave, medianOf, ratioOf, type Row } from './row.ts';
import { dense, halfZero, SIZE } from './sftp/image.ts';
import { agentMemory } from './sftp/memory.ts';
import { ourWorker } from './sftp/our-worker.ts';
import { peers } from './sftp/peers.ts';
import { startPlace } from './sftp/place.ts';

const ROUNDS = 3;
/** What was asked for: ratio to each tool, dense and half zero. */
const REACH: Record<string, { dense: string; half: string }> = {
  scp: { dense: '>= 0.8', half: '>= 1.3' },
  'scp + sha256sum': { dense: '>= 1.1', half: '>= 1.7' },
  rclone: { dense: '', half: '' },
};
const MEMORY_LIMIT = 300;

export async function bench(): Promise<Row[]> {
  await using place = await startPlace();
  const { host, port, user, privateKey, hostKey, path } = place.sshd;
  await using worker = await ourWorker(place.folder, { type: 'sftp', config: { host, port, user, privateKey, hostKey, path } });
  const rows: Row[] = [];
  for (const kind of ['dense', 'half'] as const) {
    const image = await (kind === 'dense' ? dense : halfZero)(place.folder);
    const id = newId();
    await worker.run({ what: 'upload', id, file: image }); // warms up, and is what the downloads fetch
    const object = `${place.sshd.path}/images/${id}/image.raw`;
    const arrived = `${place.folder}/arrived`;
    const tools = peers(place);
    const timed =
      (work: () => Promise<void>, cleaned: string): (() => Promise<number>) =>
      async () => {
        await execa('sync');
        const begun = performance.now();
        await work();
        const rate = SIZE / 2 ** 20 / ((performance.now() - begun) / 1000);
        await rm(cleaned, { recursive: true, force: true });
        return rate;
      };
    const runs = (direction: 'download' | 'upload'): Record<string, () => Promise<number>> => {
      const other = newId();
      const up = `${place.sshd.path}/up`;
      const ours =
        direction === 'download'
          ? timed(() => worker.run({ what: 'download', id, file: arrived }), arrived)
          : timed(() => worker.run({ what: 'upload', id: other, file: image }), `${place.sshd.path}/images/${other}`);
      const theirs = Object.entries(tools).map(([name, tool]) => [
        name,
        direction === 'download' ? timed(() => tool.download(object, arrived), arrived) : timed(() => tool.upload(image, up), up),
      ]);
      return { ours, ...Object.fromEntries(theirs) };
    };
    for (const direction of ['download', 'upload'] as const) {
      const { ours, ...theirs } = await interleave(runs(direction), ROUNDS);
      const what = `${direction}, ${kind === 'dense' ? 'dense' : 'half zero'}`;
      for (const [tool, figures] of Object.entries(theirs))
        rows.push(row(what, medianOf(ours!), tool, medianOf(figures), REACH[tool]![kind]));
    }
    await rm(image);
    await rm(`${place.sshd.path}/images/${id}`, { recursive: true });
  }
  const image = await dense(place.sshd.path);
  const peak = (await agentMemory(place, 'dense.raw')).together / 2 ** 20;
  await rm(image);
  rows.push({
    case: 'peak memory of agent + workers',
    unit: 'MiB',
    ours: peak,
    tool: 'limit',
    peer: MEMORY_LIMIT,
    ratio: ratioOf(peak, MEMORY_LIMIT, 'less'),
    reach: `< ${MEMORY_LIMIT}`,
  });
  return rows;
}

const row = (what: string, ours: number, tool: string, peer: number, reach: string): Row => ({
  case: what,
  unit: 'MiB/s',
  ours,
  tool,
  peer,
  ratio: ratioOf(ours, peer, 'more'),
  reach,
});
