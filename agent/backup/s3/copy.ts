/** Copies inside the service: Ceph and others then share the bytes, and none crosses. */
import type { Control } from './client.ts';
import { abortUpload, beginUpload, completeUpload } from './uploads.ts';
import { encodeKey } from './sign.ts';

/** "CopyObject: up to 5 GB"; larger ones are copied in parts of as much. */
const LARGEST = 5 * 2 ** 30;
/** A service that does copy the bytes needs its time for so many. */
const COPY_MS = 1_800_000;

/** An object as another one of the same service is asked to copy it. */
export interface S3Object {
  bucket: string;
  key: string;
  etag: string;
}

/** Makes `key` a copy of an object of `size` bytes, if that is still the one that was looked at. */
export async function copyObject(
  control: Control,
  from: S3Object,
  size: number,
  to: { key: string; name: string; settings: Parameters<typeof beginUpload>[3] },
  signal: AbortSignal,
): Promise<void> {
  const { sdk, bucket: Bucket, ask } = control;
  const source = { CopySource: `${from.bucket}/${encodeKey(from.key)}`, CopySourceIfMatch: from.etag };
  const until = (options: { abortSignal: AbortSignal }) => ({ abortSignal: AbortSignal.any([options.abortSignal, signal]) });
  const what = `copying ${from.bucket}/${from.key} to ${to.name}`;
  if (size <= LARGEST) {
    // the types know Amazon's own storage classes only; other services have others
    const input = { Bucket, Key: to.key, ...source, ...to.settings } as ConstructorParameters<typeof sdk.CopyObjectCommand>[0];
    await ask(what, (client, options) => client.send(new sdk.CopyObjectCommand(input), until(options)), COPY_MS);
    return;
  }
  const upload = await beginUpload(control, to.key, to.name, to.settings);
  try {
    const parts: { number: number; etag: string }[] = [];
    for (let at = 0, number = 1; at < size; at += LARGEST, number++) {
      const range = `bytes=${at}-${Math.min(at + LARGEST, size) - 1}`;
      const place = { Bucket, Key: to.key, UploadId: upload.uploadId, PartNumber: number };
      const command = new sdk.UploadPartCopyCommand({ ...place, ...source, CopySourceRange: range });
      const { CopyPartResult: done } = await ask(what, (client, options) => client.send(command, until(options)), COPY_MS);
      parts.push({ number, etag: done?.ETag ?? '' });
    }
    await completeUpload(control, upload, parts, to.name);
  } catch (error) {
    await abortUpload(control, upload, to.name);
    throw error;
  }
}
