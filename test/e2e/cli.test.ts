import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { execa } from 'execa';
import type { CacheEntry, Image, Operation, Volume } from '../../shared/model.ts';
import { type Cistern, startCistern } from '../servers/cistern.ts';
import { type ImageServer, startImageServer } from '../servers/http-image-server.ts';
import { COMMAND, type Result, runCommand, startCommand, startProgram, userEnv } from './cli-process.ts';

describe('cistern: the command against a real controller and agent', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cistern-cli-e2e-'));
  const images = join(folder, 'web');
  let cistern: Cistern;
  let web: ImageServer;
  let pool: string;
  let shelf: string;

  before(async function () {
    this.timeout(60_000);
    cistern = await startCistern(folder, { hosts: ['kvm1'] });
    pool = cistern.dir('pool');
    shelf = cistern.dir('shelf');
    cistern.dir('web');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', join(images, 'disk.qcow2'), '64M']);
    await execa('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 4M', join(images, 'disk.qcow2')]);
    web = await startImageServer(images);
  });
  after(async function () {
    this.timeout(60_000);
    await web[Symbol.asyncDispose]();
    await cistern[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  const run = (...args: string[]): Promise<Result> => runCommand(cistern, ...args);
  const ok = async (...args: string[]): Promise<Result> => {
    const result = await run(...args);
    assert.equal(result.code, 0, `cistern ${args.join(' ')}:\n${result.stderr}${result.stdout}`);
    return result;
  };
  const json = async <T>(...args: string[]): Promise<T> => JSON.parse((await ok(...args, '--output', 'json')).stdout) as T;
  /** An import that does not get on: its server says some bytes and then nothing. */
  const stalling = (name: string): string[] => {
    web.behave(`/${name}.qcow2`, { stallAfter: 100_000 });
    return ['image', 'import', name, '--url', `${web.url}/${name}.qcow2`];
  };
  const serve = (name: string): Promise<unknown> => execa('cp', [join(images, 'disk.qcow2'), join(images, `${name}.qcow2`)]);

  it('goes from nothing to volumes and back to an image', async function () {
    this.timeout(120_000);
    assert.match(
      (await ok('primary-storage', 'add', 'fast', '--type', 'local', '--set', `path=${pool}`)).stdout,
      /^primary-storage\.add fast succeeded/,
    );
    await ok('backup-storage', 'add', 'shelf', '--type', 'dir', '--set', `path=${shelf}`);

    const imported = await ok('image', 'import', 'debian', '--file', join(images, 'disk.qcow2'), '--backup-storage', 'shelf');
    assert.match(imported.stderr, /^image\.import: upload \(4\.\d MiB\)\n(?:.*\n)*image\.import: succeeded\n$/);
    assert.match(
      imported.stdout,
      /^image\.import debian succeeded in .*\n(?:.*\n)* {2}virtual size {4}64\.0 MiB\n(?:.*\n)* {2}transfer .* moved in /,
    );
    const image = await json<Image>('image', 'show', 'debian');
    assert.equal(image.virtualSize, 64 * 2 ** 20);
    assert.ok(readdirSync(join(shelf, 'images', image.id)).includes('manifest.json'));

    await ok('image', 'cache', 'add', 'debian', '--primary-storage', 'fast');
    assert.deepEqual(
      (await json<CacheEntry[]>('image', 'cache', 'list')).map(entry => [entry.imageId, entry.status]),
      [[image.id, 'ready']],
    );

    await ok('volume', 'create', 'web', '--image', 'debian', '--count', '3', '--size', '128M');
    await ok('volume', 'create', 'logs', '--size', '1.5G');
    const volumes = await json<Volume[]>('volume', 'list');
    assert.deepEqual(volumes.map(volume => [volume.name, volume.size]).sort(), [
      ['logs', 1.5 * 2 ** 30],
      ['web-1', 2 ** 27],
      ['web-2', 2 ** 27],
      ['web-3', 2 ** 27],
    ]);
    assert.match(
      (await ok('volume', 'list', '--image', 'debian')).stdout,
      /^NAME +KIND .*\n(.*\n)*web-1 +root +ready +128\.0 MiB .* fast +kvm1 +debian /,
    );

    await ok('volume', 'resize', 'web-1', '256M');
    await ok('volume', 'upload', 'web-1', 'golden', '--compress');
    assert.equal((await json<Image>('image', 'show', 'golden')).virtualSize, 2 ** 28);

    await ok('volume', 'delete', 'web-2', 'web-3');
    assert.match((await ok('trash', 'list')).stdout, /web-2(.*\n)*.*web-3|web-3(.*\n)*.*web-2/);
    assert.match((await ok('trash', 'empty')).stdout, /volumes +2/);
    assert.match((await ok('status')).stdout, /volumes +2, 1\.8 GiB virtual.*\n(.*\n)*kvm1 +connected/);
  });

  it('takes an image from a pipe', async () => {
    const started = startCommand(cistern, 'image', 'import', 'piped', '--file', '-', '--source-format', 'qcow2');
    started.child.stdin!.end(readFileSync(join(images, 'disk.qcow2')));
    const { code, stderr } = await started.ended;
    assert.equal(code, 0, stderr);
    assert.equal((await json<Image>('image', 'show', 'piped')).status, 'ready');
  });

  it('starts with --no-wait and waits later; --output json gives the operation', async () => {
    await serve('later');
    const { stdout } = await ok('image', 'import', 'later', '--url', `${web.url}/later.qcow2`, '--no-wait');
    const operation = await json<Operation>('operation', 'wait', stdout.trim());
    assert.equal(operation.state, 'succeeded');
    assert.match((await ok('operation', 'show', operation.id)).stdout, /^kind +image\.import\nstate +succeeded$/m);
  });

  it('fails with the problem of the agent, and leaves no image', async () => {
    await execa('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      join(images, 'disk.qcow2'),
      '-F',
      'qcow2',
      join(images, 'child.qcow2'),
    ]);
    const { code, stderr, stdout } = await run('image', 'import', 'child', '--file', join(images, 'child.qcow2'));
    assert.equal(code, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /^cistern: The image stands on another file \(IMAGE_BACKING_FILE\)$/m);
    assert.match(stderr, /^What to do: /m);
    assert.equal((await run('image', 'show', 'child')).code, 1);
  });

  it('asks at Ctrl-C on a real terminal; y cancels, waits for the undo and ends with 130', async function () {
    this.timeout(60_000);
    await serve('slow');
    const line = ['exec', process.execPath, COMMAND, ...stalling('slow')].join(' ');
    // script(1) gives it a terminal, and ends with its exit code
    const terminal = startProgram('script', ['-qefc', line, '/dev/null'], { ...userEnv(cistern), SHELL: '/bin/sh' });
    await terminal.prints('image.import  ');
    terminal.child.stdin!.write('\u0003');
    await terminal.prints('(image.import)? [y/N]');
    terminal.child.stdin!.write('y\r');
    const { code, stdout } = await terminal.ended;
    assert.equal(code, 130, stdout);
    assert.match(stdout, /was cancelled; what it had begun is undone/);
    assert.equal((await run('image', 'show', 'slow')).code, 1);
    assert.deepEqual(await json<Operation[]>('operation', 'list', '--state', 'running'), []);
  });

  it('lets go of the operation at SIGINT where there is no terminal; cancel then undoes it', async () => {
    await serve('stuck');
    const started = startCommand(cistern, ...stalling('stuck'));
    await started.prints('image.import: ');
    started.child.kill('SIGINT');
    const { code, stderr } = await started.ended;
    assert.equal(code, 130);
    const id = /cistern operation wait (\S+)/.exec(stderr)?.[1];
    assert.ok(id, stderr);
    assert.equal((await json<Operation>('operation', 'show', id)).state, 'running');
    assert.match((await ok('operation', 'cancel', id)).stdout, /cancelled/);
    assert.equal((await run('image', 'show', 'stuck')).code, 1);
  });

  it('cancels an upload at SIGINT, because it cannot go on alone', async () => {
    const started = startCommand(cistern, 'image', 'import', 'half', '--file', '-');
    started.child.stdin!.write(Buffer.alloc(100_000, 1));
    await started.prints('upload');
    started.child.kill('SIGINT');
    const { code, stderr } = await started.ended;
    assert.equal(code, 130, stderr);
    assert.equal((await run('image', 'show', 'half')).code, 1);
  });

  it('follows an operation over a restart of the controller', async function () {
    this.timeout(60_000);
    await serve('steady');
    web.behave('/steady.qcow2', { bytesPerSecond: 2 ** 20 });
    const started = startCommand(cistern, 'image', 'import', 'steady', '--url', `${web.url}/steady.qcow2`);
    await started.prints('image.import: ');
    await cistern.controller.kill();
    await cistern.controller.start();
    const { code, stderr } = await started.ended;
    assert.equal(code, 0, stderr);
    assert.equal((await json<Image>('image', 'show', 'steady')).status, 'ready');
  });

  it('prints events as they happen', async () => {
    const following = startCommand(cistern, 'event', 'list', '--follow', '--output', 'json');
    await following.prints('host.connected');
    await ok('volume', 'create', 'fresh', '--size', '1M');
    await following.prints('volume.create succeeded');
    following.child.kill('SIGINT');
    const { code, stdout } = await following.ended;
    assert.equal(code, 0);
    const seqs = stdout
      .trim()
      .split('\n')
      .map(line => (JSON.parse(line) as { seq: number }).seq);
    assert.deepEqual(
      seqs,
      [...new Set(seqs)].sort((a, b) => a - b),
    );
  });

  it('runs under whatever Node the system has, and passes on exit codes and signals', async () => {
    const outside = (process.env.PATH ?? '')
      .split(delimiter)
      .filter(dir => !dir.includes('node_modules'))
      .join(delimiter);
    const env = { ...userEnv(cistern), PATH: outside };
    const missing = startProgram(COMMAND, ['image', 'show', 'nothing-of-that-name'], env);
    assert.equal((await missing.ended).code, 1);
    assert.equal((await startProgram(COMMAND, ['hots'], env).ended).code, 2);

    await serve('parked');
    const interrupted = startProgram(COMMAND, stalling('parked'), env);
    await interrupted.prints('image.import: ');
    interrupted.child.kill('SIGINT');
    const { code, stderr } = await interrupted.ended;
    assert.equal(code, 130);
    await ok('operation', 'cancel', /cistern operation wait (\S+)/.exec(stderr)![1]!);

    const following = startProgram(COMMAND, ['event', 'list', '--follow'], env);
    await following.prints('host.connected');
    following.child.kill('SIGTERM');
    assert.equal((await following.ended).signal, 'SIGTERM');
  });

  it('ends quietly when who reads it has seen enough', async () => {
    const { exitCode, stderr } = await execa(
      'bash',
      ['-c', '"$0" "$@" | head -1; exit ${PIPESTATUS[0]}', process.execPath, COMMAND, 'event', 'list', '--output', 'json'],
      { env: userEnv(cistern), reject: false },
    );
    assert.deepEqual([exitCode, stderr], [0, '']);
  });
});
