#!/usr/bin/env node
// The `cistern` command for whatever Node is first on the PATH. The program needs Node 24, which npm has put into the project's own
// packages: where this Node is older, this file starts itself again under that one.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import module, { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NEEDED = 24;

function ownNode() {
  try {
    const packageJson = createRequire(import.meta.url).resolve(`node-linux-${process.arch}/package.json`);
    const node = join(dirname(packageJson), 'bin', 'node');
    return existsSync(node) ? node : undefined;
  } catch {
    return undefined;
  }
}

/** Keeps compiled code in the user's own cache folder (a shared one could be written by others): starts in half the time. */
function keepCompiledCode() {
  module.enableCompileCache(join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'cistern', 'code'));
}

if (Number(process.versions.node.split('.')[0]) >= NEEDED) {
  keepCompiledCode();
  await import('./main.ts');
} else {
  const node = ownNode();
  if (!node) {
    console.error(`cistern: Node ${NEEDED} is needed and this is ${process.version}`);
    console.error(
      `What to do: run "npm install" in ${fileURLToPath(new URL('../..', import.meta.url))}, which brings it along, or install Node ${NEEDED}.`,
    );
    process.exit(1);
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' });
  // at a terminal the kernel sends Ctrl-C to both processes; passing it on would make it two
  const terminal = process.stdin.isTTY || process.stderr.isTTY;
  process.on('SIGINT', () => terminal || child.kill('SIGINT'));
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGQUIT']) process.on(signal, () => child.kill(signal));
  child.on('error', error => {
    console.error(`cistern: starting ${node}: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (!signal) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}
