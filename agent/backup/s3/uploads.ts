/** Multipart uploads: begun, looked at, put together and given up. */
import type { ListMultipartUploadsCommandOutput } from '@aws-sdk/client-s3';
import type { Control } from './client.ts';
import { decoded, orMissing } from './objects.ts';

/** Putting thousands of parts together may take a service minutes. */
const COMPLETE_MS = 600_000;

export interface Upload {
  key: string;
  uploadId: string;
}

export interface StoredPart {
  etag: string;
  size: number;
}

export async function beginUpload(
  control: Control,
  key: string,
  name: string,
  more: { StorageClass?: string; ServerSideEncryption?: 'AES256' },
): Promise<Upload> {
  const { sdk, bucket: Bucket, ask } = control;
  // the types know Amazon's own storage classes only; other services have others
  const input = { Bucket, Key: key, ...more } as ConstructorParameters<typeof sdk.CreateMultipartUploadCommand>[0];
  const command = new sdk.CreateMultipartUploadCommand(input);
  const { UploadId: uploadId = '' } = await ask(`beginning ${name}`, (client, options) => client.send(command, options));
  return { key, uploadId };
}

/** Its parts by number; undefined where there is no such upload (any more). */
export async function listParts(
  control: Control,
  { key: Key, uploadId: UploadId }: Upload,
  name: string,
): Promise<Map<number, StoredPart> | undefined> {
  const { sdk, bucket: Bucket, ask } = control;
  const found = new Map<number, StoredPart>();
  let marker: string | undefined;
  do {
    const command = new sdk.ListPartsCommand({ Bucket, Key, UploadId, PartNumberMarker: marker });
    const page = await orMissing(ask(`listing the parts of ${name}`, (client, options) => client.send(command, options)));
    if (page === undefined) return undefined;
    for (const { PartNumber = 0, ETag: etag = '', Size: size = 0 } of page.Parts ?? []) found.set(PartNumber, { etag, size });
    marker = page.IsTruncated ? page.NextPartNumberMarker : undefined;
  } while (marker !== undefined);
  return found;
}

/** Makes these parts the object, in order. False where there is no such upload, as after a try whose answer was lost. */
export async function completeUpload(
  control: Control,
  { key: Key, uploadId: UploadId }: Upload,
  parts: readonly { number: number; etag: string }[],
  name: string,
): Promise<boolean> {
  const { sdk, bucket: Bucket, ask } = control;
  const Parts = parts.map(({ number, etag }) => ({ PartNumber: number, ETag: etag }));
  const command = new sdk.CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts } });
  const done = await orMissing(ask(`completing ${name}`, (client, options) => client.send(command, options), COMPLETE_MS));
  return done !== undefined;
}

export async function abortUpload(control: Control, upload: Upload, name: string): Promise<void> {
  const { sdk, bucket: Bucket, ask } = control;
  const command = new sdk.AbortMultipartUploadCommand({ Bucket, Key: upload.key, UploadId: upload.uploadId });
  await orMissing(ask(`giving up ${name}`, (client, options) => client.send(command, options)));
}

/** Unfinished uploads of keys that begin with `prefix`. */
export async function listUploads(control: Control, prefix: string, name: string): Promise<Upload[]> {
  const { sdk, bucket: Bucket, ask } = control;
  const found: Upload[] = [];
  let at: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } | undefined = {};
  do {
    const command = new sdk.ListMultipartUploadsCommand({ Bucket, Prefix: prefix, EncodingType: 'url', ...at });
    const page: ListMultipartUploadsCommandOutput = await ask(`listing the unfinished uploads of ${name}`, (client, options) =>
      client.send(command, options),
    );
    for (const { Key = '', UploadId: uploadId = '' } of page.Uploads ?? []) found.push({ key: decoded(Key), uploadId });
    at =
      page.IsTruncated === true
        ? { KeyMarker: decoded(page.NextKeyMarker ?? ''), UploadIdMarker: page.NextUploadIdMarker }
        : undefined;
  } while (at !== undefined);
  return found;
}

export async function abortUploads(control: Control, prefix: string, name: string): Promise<void> {
  for (const upload of await listUploads(control, prefix, name)) await abortUpload(control, upload, name);
}
