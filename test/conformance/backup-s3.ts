/** A bucket of a real RGW, for the suites of backup storage. Its objects are seen by the SDK, with a client of the test's own. */
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutBucketPolicyCommand,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { startCeph, type RgwUser, type TestCeph } from '../servers/ceph.ts';
import type { BackupTarget, View } from './backup-target.ts';

/** S3 takes no smaller parts. */
export const S3_PART = 5 * 2 ** 20;

export interface S3Target extends BackupTarget {
  ceph: TestCeph;
  client: S3Client;
  /** A new bucket, and the configuration for it. */
  bucket(name: string): Promise<Record<string, unknown> & { bucket: string }>;
  /** Everything in a bucket. */
  seen(bucket: string): View;
}

export function rgwClient(endpoint: string, { accessKey, secretKey }: RgwUser): S3Client {
  return new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
}

/** `more` is added to its configurations. */
export async function startS3(more: Record<string, unknown> = {}): Promise<S3Target> {
  const ceph = await startCeph();
  const { endpoint, user, other } = ceph.rgw;
  const client = rgwClient(endpoint, user);
  const config = { endpoint, bucket: 'images', accessKey: user.accessKey, secretKey: user.secretKey, ...more };
  const bucket = async (name: string): ReturnType<S3Target['bucket']> => {
    await client.send(new CreateBucketCommand({ Bucket: name }));
    return { ...config, bucket: name };
  };
  const seen = (name: string): View => viewOf(client, name);
  await bucket('images');
  await bucket('locked');
  await client.send(new PutBucketPolicyCommand({ Bucket: 'locked', Policy: readOnlyFor(other.uid) }));
  let smalls = 0;
  return {
    ...seen('images'),
    config: { ...config, prefix: 'vault' },
    missing: { config: { ...config, bucket: 'nowhere' }, words: /nowhere/ },
    locked: { config: { ...config, bucket: 'locked', accessKey: other.accessKey, secretKey: other.secretKey }, words: /locked/ },
    small: async () => {
      const small = await bucket(`small${smalls++}`);
      await ceph.admin('quota', 'set', '--quota-scope=bucket', '--bucket', small.bucket, '--max-size', String(4 * S3_PART));
      await ceph.admin('quota', 'enable', '--quota-scope=bucket', '--bucket', small.bucket);
      return { config: small, files: seen(small.bucket).files, [Symbol.asyncDispose]: () => Promise.resolve() };
    },
    ceph,
    client,
    bucket,
    seen,
    [Symbol.asyncDispose]: async () => {
      client.destroy();
      await ceph.stop();
    },
  };
}

const readOnlyFor = (uid: string): string =>
  JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      {
        Effect: 'Allow',
        Principal: { AWS: [`arn:aws:iam:::user/${uid}`] },
        Action: ['s3:GetObject', 's3:ListBucket', 's3:ListBucketMultipartUploads'],
        Resource: ['arn:aws:s3:::locked', 'arn:aws:s3:::locked/*'],
      },
    ],
  });

/** `prefix` is what the configuration of the bucket has; the bucket `images` is used below `vault` by the suite. */
function viewOf(client: S3Client, Bucket: string): View {
  const root = Bucket === 'images' ? 'vault/' : '';
  const keyOf = (path: string): string => root + path;
  const read = async (path: string): Promise<Buffer> => {
    const { Body: body } = await client.send(new GetObjectCommand({ Bucket, Key: keyOf(path) }));
    return Buffer.from(await body!.transformToByteArray());
  };
  const write = async (path: string, body: Buffer): Promise<void> => {
    await client.send(new PutObjectCommand({ Bucket, Key: keyOf(path), Body: body }));
  };
  return {
    files: async () => {
      const { Contents: objects = [] } = await client.send(new ListObjectsV2Command({ Bucket }));
      const { Uploads: uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket }));
      const names = [...objects.map(({ Key }) => Key!), ...uploads.map(({ Key }) => `${Key!} (unfinished)`)];
      return names.map(name => (name.startsWith(root) ? name.slice(root.length) : `/${name}`)).sort();
    },
    readObject: read,
    writeObject: write,
    stored: async path => (await read(path)).length,
    damage: async (path, offset) => {
      const body = await read(path);
      body[offset]! ^= 1;
      await write(path, body);
    },
    shorten: async (path, size) => {
      const body = await read(path);
      await client.send(new DeleteObjectCommand({ Bucket, Key: keyOf(path) }));
      await write(path, body.subarray(0, size));
    },
  };
}
