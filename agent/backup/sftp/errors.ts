import { CisternError, type ErrorCode } from '../../../shared/errors.ts';

/** Words of OpenSSH and of ssh2 that tell why a connection did not come to be; the first match counts. */
const WORDS: [RegExp, ErrorCode][] = [
  [
    /host key verification failed|host identification has changed|host denied|no matching host key|no (?:ed25519|rsa|ecdsa) host key/i,
    'STORE_HOST_KEY',
  ],
  [
    /permission denied|authentication methods failed|too many authentication failures|privatekey|passphrase|error in libcrypto|invalid format|ssh_askpass/i,
    'STORE_AUTH',
  ],
  [/subsystem request failed|unable to start subsystem/i, 'STORE_PERMISSION'],
];

/** Why a connection failed, from what the SSH program or library said. STORE_UNREACHABLE where the words are not known. */
export function connectionError(tried: string, said: string, cause?: unknown): CisternError {
  const code = WORDS.find(([words]) => words.test(said))?.[1] ?? 'STORE_UNREACHABLE';
  const text = said
    .trim()
    .replaceAll(/\s*\r?\n\s*/g, '; ')
    .slice(-600);
  return new CisternError(code, `${tried}: ${text || 'the connection was closed'}`, { cause });
}
