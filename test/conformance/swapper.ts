/**
 * A process that puts a link in the place of each of the given names and takes it away again, as fast as it can, until its standard
 * input ends: what another host of a shared pool can do. argv: where links lead, then the names. Everything is in its place at the end.
 */
import { lstatSync, renameSync, symlinkSync, unlinkSync } from 'node:fs';

const [outside = '', ...names] = process.argv.slice(2);
let ended = false;
process.stdin.on('end', () => (ended = true)).resume();

const attempt = (work: () => void): boolean => {
  try {
    work();
    return true;
  } catch {
    return false; // the agent was there first: that is the race
  }
};

function flip(name: string): void {
  if (!attempt(() => renameSync(name, `${name}.real`))) return;
  const linked = attempt(() => symlinkSync(outside, name));
  for (let i = 0; i < 20; i++) attempt(() => lstatSync(name));
  if (linked) attempt(() => unlinkSync(name));
  attempt(() => renameSync(`${name}.real`, name));
}

function round(): void {
  for (const name of names) flip(name);
  if (!ended) setImmediate(round);
}

process.stdout.write('ready\n');
round();
