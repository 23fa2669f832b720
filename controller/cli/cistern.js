#!/usr/bin/env node
// The `cistern` command for whatever Node is first on the PATH. The program needs Node 24, which npm has put into the project's own
// packages: where this Node is older, the program runs as a child under that one.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NEEDED = 24;
const main = new URL('./main.ts', import.meta.url);

function ownNode() {
  try {
    const packageJson = createRequire(import.meta.url).resolve(`node-linux-${process.arch}/package.json`);
    const node = join(dirname(packageJson), 'bin', 'node');
    return existsSync(node) ? node : undefined;
  } catch {
    return undefined;
  }
}

if (Number(process.versions.node.split('.')[0]) >= NEEDED) await import(main.href);
else {
  const node = ownNode();
  if (!node) {
    console.error(`cistern: Node ${NEEDED} is needed and this is ${process.version}`);
    console.error(
      `What to do: run "npm install" in ${fileURLToPath(new URL('../..', import.meta.url))}, which brings it along, or install Node ${NEEDED}.`,
    );
    process.exit(1);
  }
  const child = spawn(node, [fileURLToPath(main), ...process.argv.slice(2)], { stdio: 'inherit' });
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
