/** `npm run faults -- [--seeds N] [--from SEED] [--seed SEED] [--quiet]`: kills, restarts and checks by seed; ends in a table. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { playRange } from './crash/range.ts';
import { tableOf } from './crash/tally.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '300' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
    quiet: { type: 'boolean', default: false },
  },
});
const from = Number(values.seed ?? values.from);
const to = values.seed === undefined ? from + Number(values.seeds) - 1 : from;
if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to) || to < from) {
  console.error('usage: npm run faults -- [--seeds N] [--from SEED] [--seed SEED] [--quiet]');
  process.exit(2);
}

const folder = mkdtempSync(join(tmpdir(), 'cistern-faults-'));
chmodSync(folder, 0o755); // the SSH server may serve as another user
process.env.TMPDIR = folder;
// services that it started end with it, by handlers of their own
process.once('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => process.exit(130));
const { tally, failures } = await playRange(from, to, line => void (values.quiet || console.log(line)));
if (values.quiet) console.log(failures.join('\n\n'));
console.log(`\n${tableOf(tally)}`);
process.exitCode = failures.length > 0 ? 1 : 0;
