import assert from 'node:assert/strict';
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import fc from 'fast-check';
import { encodeKey, sign } from '../../agent/backup/s3/sign.ts';

/** As the SDK wants hashes. */
class Sha256 {
  #hash: Hash | Hmac;
  readonly #key: string | Uint8Array | undefined;
  constructor(key?: string | ArrayBuffer | ArrayBufferView) {
    this.#key = key === undefined || typeof key === 'string' ? key : new Uint8Array(key as ArrayBuffer);
    this.#hash = this.#begin();
  }
  #begin(): Hash | Hmac {
    return this.#key === undefined ? createHash('sha256') : createHmac('sha256', this.#key);
  }
  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(typeof data === 'string' ? data : new Uint8Array(data as ArrayBuffer));
  }
  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.#hash.digest());
  }
  reset(): void {
    this.#hash = this.#begin();
  }
}

const ours = { accessKey: 'AKEXAMPLE', secretKey: 'a/secret+key', region: 'eu-central-1' };
const theirs = new SignatureV4({
  credentials: { accessKeyId: ours.accessKey, secretAccessKey: ours.secretKey },
  region: ours.region,
  service: 's3',
  sha256: Sha256,
  uriEscapePath: false,
  applyChecksum: false,
});

describe('signing of S3 requests', () => {
  it('says what the signer of the SDK says, whatever the key and the query', async () => {
    const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 });
    const request = fc.record({
      method: fc.constantFrom('GET', 'PUT'),
      key: fc.array(text, { minLength: 1, maxLength: 4 }).map(segments => segments.join('/')),
      query: fc.dictionary(fc.string({ minLength: 1, maxLength: 8 }), text, { maxKeys: 3, noNullPrototype: true }),
      payload: fc.string({ minLength: 64, maxLength: 64, unit: fc.constantFrom(...'0123456789abcdef') }),
      now: fc.date({ min: new Date('2000-01-01'), max: new Date('2100-01-01'), noInvalidDate: true }),
    });
    const property = fc.asyncProperty(request, async ({ method, key, query, payload, now }) => {
      const path = `/bucket/${encodeKey(key)}`;
      const host = 's3.example.org:8000';
      const signed = sign({ method, host, path, query, payload }, ours, now);
      const headers = { host, 'x-amz-content-sha256': payload };
      const asked = { method, protocol: 'http:', hostname: 's3.example.org', port: 8000, path, query, headers };
      const expected = await theirs.sign(asked, { signingDate: now });
      assert.equal(signed.authorization, expected.headers.authorization);
      assert.equal(signed['x-amz-date'], expected.headers['x-amz-date']);
    });
    await fc.assert(property, { numRuns: 200 });
  });
});
