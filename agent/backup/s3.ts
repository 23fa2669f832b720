import { randomBytes } from 'node:crypto';
import { CisternError } from '../../shared/errors.ts';
import type { RangeEnd, Source } from '../transfer/ends.ts';
import type { BackupDriver, BackupStore } from './driver.ts';
import { segmentsOf } from './paths.ts';
import { PROBE, probeName, staleProbes } from './probe.ts';
import { bucketQuota } from './s3/capacity.ts';
import { openControl } from './s3/client.ts';
import { copyObject, type S3Object } from './s3/copy.ts';
import { bucketUrl, S3Config } from './s3/config.ts';
import type { LinkData } from './s3/link.ts';
import { deleteObject, headObject, listKeys, listNames, readObject } from './s3/objects.ts';
import { encodeKey } from './s3/sign.ts';
import { s3cmdDownload, s3cmdUpload, s3cmdVersion } from './s3/s3cmd.ts';
import { openSink } from './s3/sink.ts';
import type { ReadData, WriteData } from './s3/thread.ts';
import { abortUploads, listUploads } from './s3/uploads.ts';
import { giveWay } from './s3/whole.ts';

/** "Amazon S3 multipart upload limits". */
const LIMITS = { parts: 10_000, size: 5 * 2 ** 40 };

/** A bucket of any service that speaks S3. Control goes through Amazon's SDK, the bytes of images by requests of our own: the SDK is slower. */
export const s3: BackupDriver<S3Config> = {
  type: 's3',
  title: 'Bucket of an S3 service',
  shared: true,
  config: S3Config,
  connect: ({ config }, signal) => {
    signal.throwIfAborted();
    return openStore(config);
  },
};

async function openStore(config: S3Config): Promise<BackupStore> {
  const control = await openControl(config);
  const { sdk, bucket: Bucket, ask } = control;
  const url = bucketUrl(config);
  const root = config.prefix === '' ? '' : `${config.prefix}/`;
  const keyOf = (path: string): string => root + segmentsOf(path).join('/');
  const nameOf = (key: string): string => `s3 ${url.endpoint.host}/${config.bucket}/${key}`;
  const site = `s3 ${url.endpoint.origin}`;
  const settings = {
    ...(config.storageClass !== undefined && { StorageClass: config.storageClass }),
    ...(config.sse && { ServerSideEncryption: config.sse }),
  };

  const rangeEnd = <T extends { link: LinkData }>(key: string, more: Omit<T, 'link'>): RangeEnd => {
    const { protocol, port } = url.endpoint;
    const bell = new Int32Array(new SharedArrayBuffer(4));
    const wake = (): void => {
      Atomics.store(bell, 0, 1);
      Atomics.notify(bell, 0);
    };
    const link: LinkData = {
      protocol,
      hostname: url.host.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''),
      port,
      host: url.host,
      path: `${url.path}/${encodeKey(key)}`,
      credentials: { accessKey: config.accessKey, secretKey: config.secretKey, region: config.region },
      ahead: control.ahead(),
      ca: config.ca,
      name: nameOf(key),
      bell,
    };
    return {
      module: new URL('./s3/thread.ts', import.meta.url).href,
      data: { link, ...more },
      wake,
      release: () => Promise.resolve(wake()),
    };
  };
  const put = async (key: string, body: Buffer): Promise<void> => {
    // the types know Amazon's own storage classes only; other services have others
    const input = { Bucket, Key: key, Body: body, ...settings } as ConstructorParameters<typeof sdk.PutObjectCommand>[0];
    await ask(`writing ${nameOf(key)}`, (client, options) => client.send(new sdk.PutObjectCommand(input), options));
  };

  const source = async (path: string): Promise<Source> => {
    const key = keyOf(path);
    const name = nameOf(key);
    const { size, etag } = await headObject(control, key, name);
    return {
      name,
      size,
      place: { site, object: { bucket: Bucket, key, etag } satisfies S3Object },
      ranges: () => Promise.resolve(rangeEnd<ReadData>(key, { etag })),
      ...(config.tool && { tool: s3cmdDownload({ config, key, name }) }),
    };
  };

  return {
    limits: LIMITS,
    source,
    sink: async (path, size, partSize) => {
      const key = keyOf(path);
      const name = nameOf(key);
      const sink = await openSink({
        control,
        key,
        noted: key.replace(/[^/]+$/, last => `.partial-${last}.parts`),
        name,
        size,
        partSize,
        settings,
        put,
        ranges: uploadId => rangeEnd<WriteData>(key, { uploadId, partSize }),
      });
      const sizeOf = async (): Promise<number> => (await headObject(control, key, name)).size;
      const whole = giveWay(sink, { name, sizeOf, remove: () => deleteObject(control, key, name) });
      return {
        ...whole.sink,
        site,
        copy: async (object, stored, signal) => {
          await copyObject(control, object as S3Object, stored, { key, name, settings }, signal);
          await whole.begin(stored);
          return source(path);
        },
        ...(config.tool && { tool: s3cmdUpload({ config, key, name }, whole.begin) }),
      };
    },
    read: async (path, limit) => readObject(control, keyOf(path), limit, nameOf(keyOf(path))),
    write: async (path, body) => put(keyOf(path), body),
    list: async folder => {
      const prefix = `${keyOf(folder)}/`;
      const names = await listNames(control, prefix, nameOf(prefix));
      for (const { key } of await listUploads(control, prefix, nameOf(prefix)))
        names.add(key.slice(prefix.length).split('/')[0]!);
      return [...names];
    },
    remove: async folder => {
      const prefix = `${keyOf(folder)}/`;
      await abortUploads(control, prefix, nameOf(prefix));
      // one by one: not every service has DeleteObjects, and a folder of ours holds three
      for (const key of await listKeys(control, prefix, nameOf(prefix))) await deleteObject(control, key, nameOf(key));
    },
    check: async () => {
      if (config.tool) await s3cmdVersion();
      const probe = root + probeName();
      const body = randomBytes(64);
      await put(probe, body);
      try {
        const back = await readObject(control, probe, body.length, nameOf(probe));
        if (!back.equals(body))
          throw new CisternError('IO_ERROR', `reading a probe back from ${nameOf(probe)}: it is not what was written`);
      } finally {
        await deleteObject(control, probe, nameOf(probe));
      }
      const probes = await listKeys(control, root + PROBE, nameOf(root + PROBE));
      for (const old of staleProbes(probes)) await deleteObject(control, old, nameOf(old));
    },
    capacity: () => bucketQuota(control, `${url.endpoint.host}/${Bucket}`),
    close: () => Promise.resolve(control.close()),
  };
}
