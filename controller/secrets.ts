import { createCipheriv, createDecipheriv, createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CisternError } from '../shared/errors.ts';

/** Seals what must not lie readable in the database: storage settings and agents' tokens. */
export interface Secrets {
  seal(value: unknown): string;
  open<T>(sealed: string): T;
  /** A keyed hash: equal for equal values, and tells nothing of them to who has not the key. */
  fingerprint(value: unknown): string;
}

/** AES-256-GCM under a key of STATE_DIR/secret.key (0600), which is made at first start. Without that file the sealed settings are lost. */
export function openSecrets(stateDir: string): Secrets {
  const file = join(stateDir, 'secret.key');
  if (!existsSync(file)) writeFileSync(file, randomBytes(32).toString('base64'), { mode: 0o600, flag: 'wx' });
  const bytes = Buffer.from(readFileSync(file, 'utf8'), 'base64');
  if (bytes.length !== 32)
    throw new CisternError('BAD_REQUEST', `the key file ${file} does not hold 32 bytes in base64; restore it from a backup`);
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
          'INTERNAL',
          `opening a sealed setting: the key in ${file} is not the one it was sealed with, or the database was changed`,
          { cause },
        );
      }
    },
  };
}
