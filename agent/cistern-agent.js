#!/usr/bin/env node
// The `cistern-agent` command, which lets this host join a controller, for whatever Node is first on the PATH. The program needs Node 24, which npm has put into the project's own
// packages: where this Node is older, this file starts itself again under that one.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
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

if (Number(process.versions.node.split('.')[0]) >= NEEDED) {
  if (process.argv[2] === 'join') process.exit(await (await import('./join.ts')).runJoin(process.argv.slice(3)));
  console.error('usage: cistern-agent join URL --ca-fingerprint HEX --token-file PATH');
  process.exit(2);
} else {
  const node = ownNode();
  if (!node) {
    console.error(`cistern-agent: Node ${NEEDED} is needed and this is ${process.version}`);
    console.error(
      `What to do: run "npm install" in ${fileURLToPath(new URL('..', import.meta.url))}, which brings it along, or install Node ${NEEDED}.`,
    );
    process.exit(1);
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' });
  // at a terminal the kernel sends Ctrl-C to both processes; passing it on would make it two
  const terminal = process.stdin.isTTY || process.stderr.isTTY;
  process.on('SIGINT', () => terminal || child.kill('SIGINT'));
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGQUIT']) process.on(signal, () => child.kill(signal));
  child.on('error', error => {
    console.error(`cistern-agent: starting ${node}: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (!signal) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}
