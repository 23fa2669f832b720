/** Small objects, listings and removal. Keys are whole, the prefix included. */
import { CisternError } from '../../../shared/errors.ts';
import type { Control } from './client.ts';

const isMissing = (error: unknown): boolean => error instanceof CisternError && error.code === 'OBJECT_MISSING';

/** Undefined where there is no such object. */
export const orMissing = <T>(work: Promise<T>): Promise<T | undefined> =>
  work.catch((error: unknown) => {
    if (!isMissing(error)) throw error;
    return undefined;
  });

export async function headObject(control: Control, key: string, name: string): Promise<{ size: number; etag: string }> {
  const { sdk, bucket: Bucket, ask } = control;
  const what = `looking at ${name}`;
  const head = await ask(what, (client, options) => client.send(new sdk.HeadObjectCommand({ Bucket, Key: key }), options)).catch(
    async (error: unknown) => {
      // an answer to HEAD does not say why: another request does
      if (!isMissing(error)) await listKeys(control, key, name, 1);
      throw error;
    },
  );
  return { size: head.ContentLength ?? 0, etag: head.ETag ?? '*' };
}

/** MANIFEST_INVALID for an object of more than `limit` bytes. */
export async function readObject(control: Control, key: string, limit: number, name: string): Promise<Buffer> {
  const { sdk, bucket: Bucket, ask } = control;
  return ask(`reading ${name}`, async (client, options) => {
    const { Body: body, ContentLength: size = 0 } = await client.send(new sdk.GetObjectCommand({ Bucket, Key: key }), options);
    if (!body) return Buffer.alloc(0);
    if (size <= limit) return Buffer.from(await body.transformToByteArray());
    (body as Partial<{ destroy(): void }>).destroy?.();
    throw new TooLarge(size);
  }).catch((error: unknown) => {
    const cause = error instanceof CisternError ? error.cause : undefined;
    if (!(cause instanceof TooLarge)) throw error;
    throw new CisternError('MANIFEST_INVALID', `reading ${name}: it has ${cause.size} bytes, more than the ${limit} allowed`);
  });
}

class TooLarge extends Error {
  readonly size: number;
  constructor(size: number) {
    super('too large');
    this.size = size;
  }
}

export async function deleteObject(control: Control, key: string, name: string): Promise<void> {
  const { sdk, bucket: Bucket, ask } = control;
  const send = new sdk.DeleteObjectCommand({ Bucket, Key: key });
  await orMissing(ask(`removing ${name}`, (client, options) => client.send(send, options)));
}

/** Keys that begin with `prefix`; `most` of them, or all. */
export async function listKeys(control: Control, prefix: string, name: string, most = Infinity): Promise<string[]> {
  const keys: string[] = [];
  for await (const page of pages(control, prefix, name, {})) {
    keys.push(...page.keys);
    if (keys.length >= most) break;
  }
  return keys;
}

/** What follows `prefix` in keys, up to the next slash: names in a folder. */
export async function listNames(control: Control, prefix: string, name: string): Promise<Set<string>> {
  const names = new Set<string>();
  for await (const { keys, folders } of pages(control, prefix, name, { Delimiter: '/' }))
    for (const key of [...keys, ...folders]) names.add(key.slice(prefix.length).replace(/\/$/, ''));
  names.delete(''); // some tools make an object named like a folder
  return names;
}

async function* pages(
  control: Control,
  prefix: string,
  name: string,
  more: { Delimiter?: string },
): AsyncGenerator<{ keys: string[]; folders: string[] }> {
  const { sdk, bucket: Bucket, ask } = control;
  let token: string | undefined;
  do {
    // as in URLs: XML cannot hold every character that a key may have
    const command = new sdk.ListObjectsV2Command({
      Bucket,
      Prefix: prefix,
      EncodingType: 'url',
      ContinuationToken: token,
      ...more,
    });
    const page = await ask(`listing ${name}`, (client, options) => client.send(command, options));
    yield {
      keys: (page.Contents ?? []).map(({ Key = '' }) => decoded(Key)),
      folders: (page.CommonPrefixes ?? []).map(({ Prefix = '' }) => decoded(Prefix)),
    };
    token = page.IsTruncated ? page.NextContinuationToken : undefined;
  } while (token !== undefined);
}

export function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text; // a service that does not encode
  }
}
