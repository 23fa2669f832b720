import { createCipheriv, createDecipheriv, createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CisternError } from '../shared/errors.ts';
import { readOrMakeSecretFile } from '../shared/secret-file.ts';
import type { Database } from './db/database.ts';

/** Where a sealed value stands: table and column, and the id of the row. It opens nowhere else. */
export type Place = `${string}.${string}/${string}`;

/** Seals what must not lie readable in the database: storage settings, agents' tokens, requests and plans. */
export interface Secrets {
  seal(value: unknown, place: Place): string;
  open<T>(sealed: string, place: Place): T;
  /** A keyed hash: equal for equal values, and tells nothing of them to who has not the key. */
  fingerprint(value: unknown): string;
}

const NAME = 'secret.key';

/**
 * AES-256-GCM under a key of 32 bytes in base64: the systemd credential `secret.key` (systemd.exec(5), LoadCredentialEncrypted=) in the
 * folder `credentials` where there is one, else STATE_DIR/secret.key (0600), which is made at the first start. KEY_DAMAGED where it
 * holds no key, or is missing although there is a database already (`mayMake` false); SECRET_FILE where others could use it.
 */
export function openSecrets(
  stateDir: string,
  { mayMake, credentials = process.env.CREDENTIALS_DIRECTORY }: { mayMake: boolean; credentials?: string },
): Secrets {
  const { file, text } = readKey(stateDir, mayMake, credentials);
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length !== 32) throw new CisternError('KEY_DAMAGED', `the key file ${file} does not hold 32 bytes in base64`);
  const key = createSecretKey(bytes);
  return {
    fingerprint: value => createHmac('sha256', key).update(JSON.stringify(value)).digest('hex'),
    seal(value, place) {
      const iv = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(place));
      const body = Buffer.concat([cipher.update(JSON.stringify(value)), cipher.final()]);
      return Buffer.concat([iv, cipher.getAuthTag(), body]).toString('base64');
    },
    open(sealed, place) {
      const all = Buffer.from(sealed, 'base64');
      try {
        const decipher = createDecipheriv('aes-256-gcm', key, all.subarray(0, 12), { authTagLength: 16 });
        decipher.setAAD(Buffer.from(place)).setAuthTag(all.subarray(12, 28));
        return JSON.parse(Buffer.concat([decipher.update(all.subarray(28)), decipher.final()]).toString());
      } catch (cause) {
        throw new CisternError(
          'KEY_DAMAGED',
          `opening ${place}: the key ${file} is not the one that it was sealed with, or the database was changed`,
          { cause },
        );
      }
    },
  };
}

function readKey(stateDir: string, mayMake: boolean, credentials: string | undefined): { file: string; text: string } {
  const credential = credentials === undefined ? undefined : join(credentials, NAME);
  // systemd alone decides who may read its credentials
  if (credential !== undefined && existsSync(credential))
    return { file: credential, text: readFileSync(credential, 'utf8').trim() };
  const file = join(stateDir, NAME);
  if (!existsSync(file) && !mayMake)
    throw new CisternError('KEY_DAMAGED', `the key file ${file} is not there, but settings in the database were sealed with it`);
  return { file, text: readOrMakeSecretFile(file, () => randomBytes(32).toString('base64')).text };
}

/** KEY_DAMAGED where the key does not open what the database has: better at the start than in the middle of the work. */
export async function proveKey(db: Pick<Database, 'read'>, secrets: Secrets): Promise<void> {
  const host = await db.read.selectFrom('hosts').select(['id', 'token_sealed']).limit(1).executeTakeFirst();
  if (host) secrets.open(host.token_sealed, `hosts.token_sealed/${host.id}`);
}
