import { closeSync, existsSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { writeDurable } from './durable.ts';
import { CisternError } from './errors.ts';

/** What a file holds that is for its owner alone. SECRET_FILE where it is not a plain file, not ours, or open to others. */
export function readSecretFile(file: string): string {
  const fd = openSync(file, 'r');
  try {
    const { mode, uid } = fstatSync(fd);
    const refuse = (came: string): never => {
      throw new CisternError('SECRET_FILE', `reading ${file}: ${came}`);
    };
    if ((mode & 0o170000) !== 0o100000) refuse('it is not a plain file');
    if (uid !== 0 && uid !== process.getuid!()) refuse(`it belongs to the user ${uid}`);
    if ((mode & 0o077) !== 0) refuse(`its mode is ${(mode & 0o777).toString(8)}, so that others can use it`);
    return readFileSync(fd, 'utf8').trim();
  } finally {
    closeSync(fd);
  }
}

/** The same of a file that is made with `make()` (0600, whole or not at all, on disk) where there is none yet; `created` says so. */
export function readOrMakeSecretFile(file: string, make: () => string): { text: string; created: boolean } {
  if (existsSync(file)) return { text: readSecretFile(file), created: false };
  const text = make();
  writeDurable(file, `${text}\n`);
  return { text, created: true };
}
