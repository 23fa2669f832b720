import { readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Logger } from '../../shared/log.ts';

/** How many damaged ones of one file are kept; the oldest go. */
const KEPT = 10;

/**
 * Keeps what was damaged in a state file for whoever looks into it: `bytes`, or the file itself, as `FILE.damaged-TIME` beside it. Logs
 * where it lies, or why it could not be kept: a service starts without it all the same.
 */
export function setAside(file: string, what: string, log: Logger, bytes?: Buffer): void {
  const [folder, prefix] = [dirname(file), `${basename(file)}.damaged-`];
  const aside = join(folder, prefix + new Date().toISOString().replaceAll(':', '-'));
  try {
    if (bytes) writeFileSync(aside, bytes, { mode: 0o600 });
    else renameSync(file, aside);
    const all = readdirSync(folder).filter(name => name.startsWith(prefix)).sort(); // prettier-ignore
    for (const name of all.slice(0, -KEPT)) rmSync(join(folder, name), { recursive: true, force: true });
    log.warn({ aside }, `${what} was set aside`);
  } catch (error) {
    log.error({ file, err: error }, `${what} could not be set aside`);
  }
}
