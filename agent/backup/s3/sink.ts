/** A new object: a multipart upload, part N of the image as part N + 1, and a journal beside it of what has arrived. */
import { CisternError } from '../../../shared/errors.ts';
import type { RangeEnd, Sink } from '../../transfer/ends.ts';
import { headLine, JOURNAL_LIMIT, parseJournal, partLine } from '../../transfer/part-journal.ts';
import { partRange, ZERO, type PartDigest } from '../../transfer/parts.ts';
import type { Control } from './client.ts';
import { deleteObject, headObject, orMissing, readObject } from './objects.ts';
import { abortUploads, beginUpload, completeUpload, listParts, type StoredPart, type Upload } from './uploads.ts';

/** All parts but the last must have so much: "Amazon S3 multipart upload limits". */
const SMALLEST_PART = 5 * 2 ** 20;

export interface SinkOptions {
  control: Control;
  key: string;
  /** Key of the journal. */
  noted: string;
  name: string;
  size: number;
  partSize: number;
  /** Settings of new objects. */
  settings: Parameters<typeof beginUpload>[3];
  put(key: string, body: Buffer): Promise<void>;
  ranges(uploadId: string): RangeEnd;
}

export async function openSink(options: SinkOptions): Promise<Sink> {
  const { control, key, noted, name, size, partSize, put } = options;
  if (size > partSize && partSize < SMALLEST_PART)
    throw new CisternError(
      'STORE_LIMIT',
      `writing ${name}: its parts have ${partSize} bytes, and S3 takes none below ${SMALLEST_PART}`,
    );
  const { upload, kept } = (await takeUp(options)) ?? (await begin(options));
  const arrived = new Map(kept);
  let fresh = false;
  let noting: Promise<void> = Promise.resolve();
  const note = (): Promise<void> => {
    noting = noting
      .catch(() => undefined)
      .then(async () => {
        if (!fresh) return;
        fresh = false;
        const lines = [...arrived].map(([part, digest]) => partLine(part, digest));
        await put(noted, Buffer.from(headLine({ size, partSize, tag: upload.uploadId }) + lines.join('')));
      });
    return noting;
  };
  const forget = async (): Promise<void> => {
    await noting.catch(() => undefined);
    await abortUploads(control, key, name);
    await deleteObject(control, noted, name);
  };
  return {
    name,
    packs: true,
    kept,
    arrived: (part, digest) => {
      if (digest === ZERO) return;
      arrived.set(part, digest);
      fresh = true;
    },
    ranges: () => Promise.resolve(options.ranges(upload.uploadId)),
    flush: note,
    publish: async parts => {
      try {
        await complete(options, upload, parts);
      } catch (error) {
        await forget();
        throw error;
      }
      await forget();
    },
    abort: forget,
    park: note,
  };
}

interface Begun {
  upload: Upload;
  kept: Map<number, PartDigest>;
}

/** The upload that an earlier attempt has left, if it is of an object of this size and cut. */
async function takeUp({ control, key, noted, name, size, partSize }: SinkOptions): Promise<Begun | undefined> {
  const text = (await orMissing(readObject(control, noted, JOURNAL_LIMIT, name)))?.toString('latin1') ?? '';
  const uploadId = /^\d+ \d+ (\S+)\n/.exec(text)?.[1];
  if (uploadId === undefined) return undefined;
  const told = parseJournal(text, { size, partSize, tag: uploadId });
  if (told.size === 0) return undefined;
  const upload = { key, uploadId };
  const there = await listParts(control, upload, name);
  if (there === undefined) return undefined;
  const isThere = (part: number): boolean => there.get(part + 1)?.size === partRange(part, size, partSize).length;
  return { upload, kept: new Map([...told].filter(([part]) => isThere(part))) };
}

async function begin({ control, key, noted, name, settings }: SinkOptions): Promise<Begun> {
  await abortUploads(control, key, name);
  await deleteObject(control, noted, name);
  return { upload: await beginUpload(control, key, name, settings), kept: new Map() };
}

async function complete(options: SinkOptions, upload: Upload, parts: readonly PartDigest[]): Promise<void> {
  const { control, key, name, size, partSize, put } = options;
  const wanted = parts.flatMap((digest, part) => (digest === ZERO ? [] : [part]));
  if (wanted.length === 0) return put(key, Buffer.alloc(0));
  const lengthOf = (part: number): number => partRange(part, size, partSize).length;
  const there = (await listParts(control, upload, name)) ?? new Map<number, StoredPart>();
  const whole = wanted.map(part => {
    const stored = there.get(part + 1);
    if (stored?.size === lengthOf(part)) return { number: part + 1, etag: stored.etag };
    throw new CisternError(
      'DIGEST_MISMATCH',
      `completing ${name}: of part ${part} there are ${stored?.size ?? 0} of ${lengthOf(part)} bytes`,
    );
  });
  await completeUpload(control, upload, whole, name);
  const length = wanted.reduce((sum, part) => sum + lengthOf(part), 0);
  const stored = await headObject(control, key, name);
  if (stored.size === length) return;
  await deleteObject(control, key, name);
  throw new CisternError('DIGEST_MISMATCH', `completing ${name}: it has ${stored.size} bytes, and ${length} were sent`);
}
