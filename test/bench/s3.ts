/**
 * Moves a 2 GiB image to and from a Ceph RGW on loopback (one OSD on a file of this machine): ours, in a process of its own as the agent's
 * workers are, every part verified, against s3cmd and rclone. Before each run the disk is idle (sync, not measured).
 */
import { CreateBucketCommand, DeleteObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { removeImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { newId } from '../../shared/id.ts';
import { startCeph } from '../servers/ceph.ts';
import { interleave, medianOf, ratioOf, type Row } from './row.ts';
import { peers } from './s3/peers.ts';
import { dense, halfZero, SIZE } from './sftp/image.ts';
import { ourWorker } from './sftp/our-worker.ts';

const ROUNDS = 3;
const BUCKET = 'bench';
/** What was asked for: ratio to the better of both tools. */
const REACH = { dense: '>= 1.2', half: '>= 1.8' };

export async function bench(): Promise<Row[]> {
  await using ceph = await startCeph({ store: 'bluestore' });
  const folder = await mkdtemp(join(tmpdir(), 'cistern-bench-'));
  await using _folder = { [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
  const { accessKey, secretKey } = ceph.rgw.user;
  const config = { endpoint: ceph.rgw.endpoint, bucket: BUCKET, accessKey, secretKey };
  const client = new S3Client({
    endpoint: ceph.rgw.endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
  });
  await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
  const store = await openBackupStore({ id: newId(), type: 's3', config }, new AbortController().signal);
  await using _store = { [Symbol.asyncDispose]: () => store.close() };
  await using worker = await ourWorker(folder, { type: 's3', config });
  const tools = await peers(ceph, folder);
  const removed = (key: string): Promise<unknown> => client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: key }));
  const timed =
    (work: () => Promise<void>, clean: () => Promise<unknown>): (() => Promise<number>) =>
    async () => {
      await execa('sync');
      const begun = performance.now();
      await work();
      const rate = SIZE / 2 ** 20 / ((performance.now() - begun) / 1000);
      await clean();
      await ceph.admin('gc', 'process', '--include-all'); // RGW would keep what was removed for two hours, and its disk fill up
      return rate;
    };

  const rows: Row[] = [];
  for (const kind of ['dense', 'half'] as const) {
    const image = await (kind === 'dense' ? dense : halfZero)(folder);
    const [id, other] = [newId(), newId()];
    const arrived = join(folder, 'arrived');
    const gone = (): Promise<void> => rm(arrived);
    await worker.run({ what: 'upload', id, file: image }); // warms up, and is what the downloads fetch
    await tools.s3cmd.upload(image, `${BUCKET}/plain`);
    const runs = {
      download: {
        ours: timed(() => worker.run({ what: 'download', id, file: arrived }), gone),
        s3cmd: timed(() => tools.s3cmd.download(`${BUCKET}/plain`, arrived), gone),
        rclone: timed(() => tools.rclone.download(`${BUCKET}/plain`, arrived), gone),
      },
      upload: {
        ours: timed(
          () => worker.run({ what: 'upload', id: other, file: image }),
          () => removeImage(store, other),
        ),
        s3cmd: timed(
          () => tools.s3cmd.upload(image, `${BUCKET}/up`),
          () => removed('up'),
        ),
        rclone: timed(
          () => tools.rclone.upload(image, `${BUCKET}/up`),
          () => removed('up'),
        ),
      },
    };
    for (const direction of ['download', 'upload'] as const) {
      const what = `${direction}, ${kind === 'dense' ? 'dense' : 'half zero'}`;
      const { ours, ...theirs } = await interleave(runs[direction], ROUNDS, what);
      for (const [tool, figures] of Object.entries(theirs)) {
        const [mine, peer] = [medianOf(ours), medianOf(figures)];
        const reach = REACH[kind];
        rows.push({ case: what, unit: 'MiB/s', ours: mine, tool, peer, ratio: ratioOf(mine, peer, 'more'), reach });
      }
    }
    await rm(image);
    await removeImage(store, id);
    await removed('plain');
  }
  return rows;
}
