/**
 * `npm run demo [-- --image FILE|URL]`: the main job with real parts on this machine. A controller, an agent and an SSH server are
 * started on free loopback ports, the `cistern` commands that an operator would type are run and shown, contents are compared, and
 * everything is stopped and removed. Exit code 0 only where all of it worked.
 */
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { execa } from 'execa';
import type { Volume } from '../../shared/model.ts';
import { startCistern } from '../servers/cistern.ts';
import { startSshd } from '../servers/sshd.ts';
import { makeImage } from './image.ts';

const CLONES = 20;
/** Any one program of the demo is given up after this. */
const TIMEOUT_MS = 600_000;
const CLI = join(import.meta.dirname, '../../controller/cli/cistern.js');

const { values } = parseArgs({ options: { image: { type: 'string' } } });
const took: [string, number][] = [];

async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const result = await work();
  took.push([what, (performance.now() - began) / 1000]);
  return result;
}

/** A program that must succeed; what it prints is shown where it fails. */
const run = (file: string, args: string[]) => execa(file, args, { timeout: TIMEOUT_MS, stdin: 'ignore' });
const say = (line: string) => console.log(`\n${line}`);

async function demo(): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.adopt(await mkdtemp(join(tmpdir(), 'cistern-demo-')), path => rm(path, { recursive: true, force: true }));
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());

  say('Starting a controller, an agent and an SSH server on loopback.');
  const [house, sshd] = await timed('start controller, agent and SSH server', () =>
    Promise.all([startCistern(folder, { hosts: ['this-machine'] }).then(c => stack.use(c)), startSshd().then(s => stack.use(s))]),
  );
  const image = values.image ?? (await timed('make an image with a file system', () => makeImage(folder)));
  const source = /^https?:/.test(image) ? ['--url', image] : ['--file', image];

  const cistern = async (what: string, ...args: string[]): Promise<void> => {
    stop.signal.throwIfAborted();
    say(`$ cistern ${args.join(' ').replaceAll(folder, 'DEMO')}`);
    const env = { CISTERN_URL: house.controller.url, CISTERN_TOKEN_FILE: house.tokenFile };
    await timed(what, () =>
      execa(process.execPath, [CLI, ...args], { env, stdio: 'inherit', timeout: TIMEOUT_MS, cancelSignal: stop.signal }),
    );
  };
  const [keyFile, hostKeyFile] = [join(folder, 'id'), join(folder, 'host-key')];
  await copyFile(sshd.keyFile, keyFile);
  await writeFile(hostKeyFile, sshd.hostKey, { mode: 0o600 });

  await cistern(
    'add two pools and two backup storages',
    'primary-storage',
    'add',
    'one',
    '--type',
    'local',
    '--set',
    `path=${house.dir('one')}`,
  );
  await cistern('', 'primary-storage', 'add', 'two', '--type', 'local', '--set', `path=${house.dir('two')}`);
  await cistern('', 'backup-storage', 'add', 'shelf', '--type', 'dir', '--set', `path=${house.dir('shelf')}`);
  await cistern(
    '',
    'backup-storage',
    'add',
    'vault',
    '--type',
    'sftp',
    '--set',
    `host=${sshd.host}`,
    '--set',
    `port=${sshd.port}`,
    '--set',
    `user=${sshd.user}`,
    '--set',
    `path=${sshd.path}`,
    '--set-file',
    `privateKey=${keyFile}`,
    '--set-file',
    `hostKey=${hostKeyFile}`,
  );
  await cistern(
    'import the image into both backup storages',
    'image',
    'import',
    'base',
    ...source,
    '--backup-storage',
    'shelf',
    '--backup-storage',
    'vault',
  );
  await cistern('prefetch it into the image cache', 'image', 'cache', 'add', 'base', '--primary-storage', 'one');
  await cistern(
    `make ${CLONES} linked clones`,
    'volume',
    'create',
    'vm',
    '--image',
    'base',
    '--count',
    String(CLONES),
    '--primary-storage',
    'one',
  );

  const find = async (name: string, pool: string): Promise<string> => {
    const volume: Volume = await house.api.getVolume({ params: { ref: name } });
    return join(house.dir(pool), volume.path!);
  };
  say(`Writing 32 MiB into vm-1, as its guest would.`);
  const written = await find('vm-1', 'one');
  await timed('write into one clone', () =>
    run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x5a 8M 32M', '-c', 'flush', '--', written]),
  );
  await cistern('upload it as a template', 'volume', 'upload', 'vm-1', 'golden', '--backup-storage', 'vault');
  await cistern(
    'make a volume from that on the second pool',
    'volume',
    'create',
    'copy',
    '--image',
    'golden',
    '--primary-storage',
    'two',
  );

  say('Comparing contents byte by byte.');
  const base = /^https?:/.test(image) ? undefined : image;
  await timed('compare contents byte by byte', async () => {
    await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', '--', written, await find('copy', 'two')]);
    console.log('  vm-1 on the first pool     = copy on the second pool');
    await run('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read -P 0x5a 8M 32M', '--', await find('copy', 'two')]);
    console.log('  what was written into vm-1 is in copy');
    if (base === undefined) return;
    const { stdout } = await run('qemu-img', ['info', '--output=json', '--', base]);
    await run('qemu-img', [
      'compare',
      '-f',
      'qcow2',
      '-F',
      (JSON.parse(stdout) as { format: string }).format,
      '--',
      await find(`vm-${CLONES}`, 'one'),
      base,
    ]);
    console.log(`  vm-${CLONES}, never written, = the image`);
  });
  await cistern('', 'status');
  say('Stopping everything.');
  await timed('stop', () => stack.disposeAsync());
}

function summary(): string {
  const table = new Table({ head: ['what', 'seconds'], style: { head: [], border: [] }, colAligns: ['left', 'right'] });
  const rows: [string, number][] = [];
  for (const [what, seconds] of took) {
    const last = rows.at(-1);
    if (what === '' && last) last[1] += seconds;
    else rows.push([what, seconds]);
  }
  for (const [what, seconds] of rows) table.push([what, seconds.toFixed(2)]);
  table.push(['all', took.reduce((sum, [, seconds]) => sum + seconds, 0).toFixed(2)]);
  return table.toString();
}

try {
  await demo();
  say(summary());
  say('All of it worked. Next: npm start, and the README.');
  process.exit(0);
} catch (error) {
  console.error(`\nThe demo failed: ${(error as Error).message}`);
  process.exit(1);
}
