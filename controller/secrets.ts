import { createCipheriv, createDecipheriv, createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CisternError } from '../shared/errors.ts';
import type { Database } from './db/database.ts';

/** Seals what must not lie readable in the database: storage settings and agents' tokens. */
export interface Secrets {
  seal(value: unknown): string;
  open<T>(sealed: string): T;
  /** A keyed hash: equal for equal values, and tells nothing of them to who has not the key. */
  fingerprint(value: unknown): string;
}

/**
 * AES-256-GCM under a key of STATE_DIR/secret.key (0600), which is made at first start. Without that file the sealed settings are lost:
 * where there is a database already (`mayMake` false) a missing one is KEY_DAMAGED, as one that holds no key is.
 */
export function openSecrets(stateDir: string, { mayMake }: { mayMake: boolean }): Secrets {
  const file = join(stateDir, 'secret.key');
  if (!existsSync(file) && !mayMake)
    throw new CisternError('KEY_DAMAGED', `the key file ${file} is not there, but settings in the database were sealed with it`);
  if (!existsSync(file)) writeFileSync(file, randomBytes(32).toString('base64'), { mode: 0o600, flag: 'wx' });
  const bytes = Buffer.from(readFileSync(file, 'utf8'), 'base64');
  if (bytes.length !== 32) throw new CisternError('KEY_DAMAGED', `the key file ${file} does not hold 32 bytes in base64`);
  const key = createSecretKey(bytes);
  return {
    fingerprint: value => createHmac('sha256', key).update(JSON.stringify(value)).digest('hex'),
    seal(value) {
      const iv = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key, iv);
      const body = Buffer.concat([cipher.update(JSON.stringify(value)), cipher.final()]);
      return Buffer.concat([iv, cipher.getAuthTag(), body]).toString('base64');
    },
    open(sealed) {
      const all = Buffer.from(sealed, 'base64');
      try {
        const decipher = createDecipheriv('aes-256-gcm', key, all.subarray(0, 12));
        decipher.setAuthTag(all.subarray(12, 28));
        return JSON.parse(Buffer.concat([decipher.update(all.subarray(28)), decipher.final()]).toString());
      } catch (cause) {
        throw new CisternError(
          'KEY_DAMAGED',
          `opening a sealed setting: the key in ${file} is not the one it was sealed with, or the database was changed`,
          { cause },
        );
      }
    },
  };
}

/** KEY_DAMAGED where the key does not open what the database has: better at the start than in the middle of the work. */
export async function proveKey(db: Database, secrets: Secrets): Promise<void> {
  const host = await db.read.selectFrom('hosts').select('token_sealed').limit(1).executeTakeFirst();
  if (host) secrets.open(host.token_sealed);
}
