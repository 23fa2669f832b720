/** A folder with what the services may change, and beside it what they must leave alone. */
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

export interface GuardedPlace extends Disposable {
  base: string;
  /** A path below the base. */
  at(...names: string[]): string;
  /** All that lies beside what may change: names, kinds, modes and contents. */
  guarded(): string[];
}

/**
 * Makes `folders`, which the services may change. Each has a twin whose name begins as its own does, with a file in it; the base
 * has one, too.
 */
export function guardedPlace(folders: string[]): GuardedPlace {
  const base = mkdtempSync(join(tmpdir(), 'cistern-paths-'));
  const at = (...names: string[]): string => join(base, ...names);
  const precious = (...names: string[]): void => {
    mkdirSync(at(...names), { recursive: true });
    writeFileSync(at(...names, 'precious'), `precious ${names.join('/')}`);
  };
  precious();
  precious('home');
  for (const folder of folders) {
    mkdirSync(at(folder), { recursive: true });
    precious(`${folder}-twin`);
  }
  const open = new Set(folders);
  const describe = (folder: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
      const path = join(folder, entry.name);
      const name = relative(base, path);
      if (open.has(name)) return [];
      const { mode, nlink, uid, size } = lstatSync(path);
      if (entry.isDirectory()) return [`${name}/ ${mode}`, ...describe(path)];
      const content = entry.isFile() ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
      return [`${name} ${mode} ${nlink} ${uid} ${size} ${entry.isSymbolicLink() ? readlinkSync(path) : content}`];
    });
  return {
    base,
    at,
    guarded: () => describe(base).sort(),
    [Symbol.dispose]: () => rmSync(base, { recursive: true, force: true, maxRetries: 5 }),
  };
}
