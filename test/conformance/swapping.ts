/** Runs swapper.ts, and sees what it led to. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from './primary-targets.ts';

const SWAPPER = new URL('./swapper.ts', import.meta.url).pathname;

/** Flips the names while it is not disposed of. The pipe that it plants lies beside `outside`. */
export async function swapping(outside: string, names: string[]): Promise<AsyncDisposable> {
  const pipe = `${outside}.pipe`;
  await exec('mkfifo', ['--', pipe]);
  const child = spawn(process.execPath, [SWAPPER, outside, pipe, ...names], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return {
    [Symbol.asyncDispose]: async () => {
      const exit = once(child, 'exit');
      child.stdin.end();
      await exit;
    },
  };
}

/** What is there, and when each thing was last read: a read shows, as each was set to have been read before it was written. */
export async function record(folder: string): Promise<string[]> {
  const names = (await readdir(folder, { recursive: true })).sort();
  const stats = await Promise.all(names.map(async name => ({ name, stat: await lstat(join(folder, name)) })));
  return stats.map(({ name, stat }) => [name, stat.ino, stat.mode, stat.nlink, stat.size, stat.mtimeMs, stat.atimeMs].join(' '));
}
