/** Names of the probe objects that checks write and remove again. They tell their age, so that those of checks that were killed are found. */
import { randomBytes } from 'node:crypto';

export const PROBE = 'cistern-probe-';
/** Nobody looks at an older one any more, even where the clocks of hosts differ. */
const OLD_MS = 3600_000;
const NAME = /(?:^|[^A-Za-z0-9])cistern-probe-([0-9a-z]{8,9})-[0-9a-f]{16}$/;

export const probeName = (time = Date.now()): string => `${PROBE}${time.toString(36)}-${randomBytes(8).toString('hex')}`;

/** Those among `names` that a check has left that was killed. */
export const staleProbes = (names: readonly string[]): string[] =>
  names.filter(name => Number.parseInt(NAME.exec(name)?.[1] ?? '', 36) < Date.now() - OLD_MS);
