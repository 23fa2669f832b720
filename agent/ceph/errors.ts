import { CisternError, type ErrorCode } from '../../shared/errors.ts';

/** Words of rbd, rados, ceph and qemu-nbd that tell why they failed; the first match counts. */
const WORDS: [RegExp, ErrorCode][] = [
  [/unknown (?:driver|protocol) '?rbd|driver 'rbd' is not/i, 'TOOL_MISSING'],
  [/handle_auth_bad_method|no keyring found/i, 'STORE_AUTH'],
  [/error connecting[^\n]*(?:permission denied|not permitted)/i, 'STORE_AUTH'],
  [
    /failed to fetch mon config|authenticate timed out|couldn't connect|error connecting|unable to get monitor/i,
    'STORE_UNREACHABLE',
  ],
  [/error opening (?:the )?pool|namespace[^\n]*(?:does not exist|no such)/i, 'STORE_CONFIG'],
  [/no space left|disk quota exceeded|\((?:28|122)\)/i, 'STORE_FULL'],
  [/permission denied|operation not permitted|read-only file system|\((?:1|13|30)\)/i, 'STORE_PERMISSION'],
  [/timed out|connection (?:refused|reset)|not connected|shutdown|\((?:107|108|110|111)\)/i, 'STORE_UNREACHABLE'],
  [/has watchers|device or resource busy|\(16\)/i, 'STORE_BUSY'],
  [/no such file|\(2\)/i, 'OBJECT_MISSING'],
];

/** Why a call failed, from what the program said. STORE_IO_ERROR where the words are not known. */
export function cephError(tried: string, said: string, cause?: unknown): CisternError {
  const code = WORDS.find(([words]) => words.test(said))?.[1] ?? 'STORE_IO_ERROR';
  // lines of the library's own log say nothing that the last ones do not
  const text = said
    .trim()
    .split(/\s*\r?\n\s*/)
    .slice(-4)
    .join('; ')
    .slice(-600);
  const more = code === 'TOOL_MISSING' ? '; on Debian and Ubuntu it comes with the package qemu-block-extra' : '';
  return new CisternError(code, `${tried}: ${text || 'it ended without a word'}${more}`, { cause });
}

/** Whether something of that name was there already. */
export const isThere = (error: unknown): boolean => error instanceof CisternError && /file exists|\(17\)/i.test(error.message);

export const isCode = (error: unknown, code: ErrorCode): error is CisternError =>
  error instanceof CisternError && error.code === code;
