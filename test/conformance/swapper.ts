/**
 * A process that puts something in the place of each of the given names and takes it away again, as fast as it can, until its
 * standard input ends: what another host of a shared pool, or whoever may write there, can do. In turn that is a link to the folder
 * `outside`, a link to what has the same name in it, a link to what is not there yet, and a pipe. argv: outside, a pipe, the names;
 * a name that ends in `/*` is each that is found there. Everything is in its place at the end.
 */
import { linkSync, lstatSync, readdirSync, renameSync, symlinkSync, unlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const [outside = '', pipe = '', ...names] = process.argv.slice(2);
let ended = false;
let turn = 0;
process.stdin.on('end', () => (ended = true)).resume();

const attempt = <T>(work: () => T): T | undefined => {
  try {
    return work();
  } catch {
    return undefined; // the agent was there first: that is the race
  }
};

function plant(name: string): void {
  const kind = turn++ % 5;
  if (kind === 4) linkSync(pipe, name);
  else symlinkSync(kind < 2 ? outside : join(outside, kind === 2 ? basename(name) : `made-${turn}`), name);
}

function flip(name: string): void {
  if (attempt(() => (renameSync(name, `${name}.real`), true)) === undefined) return;
  const planted = attempt(() => (plant(name), true));
  for (let i = 0; i < 20; i++) attempt(() => lstatSync(name));
  if (planted === true) attempt(() => unlinkSync(name));
  attempt(() => renameSync(`${name}.real`, name));
}

const named = (name: string): string[] =>
  name.endsWith('/*') ? (attempt(() => readdirSync(dirname(name))) ?? []).map(found => join(dirname(name), found)) : [name];

function round(): void {
  for (const name of names.flatMap(named)) if (!name.endsWith('.real')) flip(name);
  if (!ended) setImmediate(round);
}

process.stdout.write('ready\n');
round();
