import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmod, chown, copyFile, lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { caged, cages } from '../../agent/host/cage.ts';
import { cageUser, cageWords } from '../../agent/host/cage-words.ts';
import { decompress } from '../../agent/host/decompress.ts';
import { convert } from '../../agent/host/qemu-img.ts';
import { run } from '../../agent/host/run.ts';
import { exec, MiB } from './commands-host.ts';
import { read } from './source-tree.ts';
import { hostileProgram, type Prey, script } from './hostile-program.ts';

const root = process.getuid?.() === 0;
const listening = (server: Server, at: { host: string; port: number } | { path: string }): Promise<Server> =>
  new Promise((resolve, reject) => server.once('error', reject).listen(at, () => resolve(server)));

describe('cage: a program that reads an untrusted image, taken over by it', function () {
  this.timeout(60_000);
  let base: string;
  let prey: Prey;
  let servers: Server[];
  let visitors = 0;
  const path = process.env['PATH'] ?? '';
  const at = (name: string): string => join(base, name);
  const withPath = async (folder: string, work: () => Promise<unknown>): Promise<void> => {
    process.env['PATH'] = [folder, path].join(delimiter);
    try {
      await work();
    } finally {
      process.env['PATH'] = path;
    }
  };

  before(async () => {
    base = await mkdtemp(join(tmpdir(), 'cistern-cage-'));
    await mkdir(at('spool'), { mode: 0o700 });
    await mkdir(at('bin'));
    await writeFile(at('secret'), 'hunter2', { mode: 0o600 });
    await exec('qemu-img', ['create', '-q', '-f', 'qcow2', at('spool/source'), '8M']);
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 7 1M 2M', at('spool/source')]);
    const server = () => createServer(socket => void (visitors++, socket.destroy()));
    servers = [await listening(server(), { host: '127.0.0.1', port: 0 }), await listening(server(), { path: at('socket') })];
    await chmod(at('socket'), 0o777);
    prey = {
      where: 'target',
      secret: at('secret'),
      elsewhere: at('spool'),
      port: (servers[0]!.address() as AddressInfo).port,
      socket: at('socket'),
      victim: process.pid,
      forks: 2000,
    };
  });
  after(async () => {
    for (const server of servers) await new Promise(resolve => server.close(resolve));
    await rm(base, { recursive: true, force: true });
  });

  const source = () => ({ path: at('spool/source'), format: 'qcow2' as const, backing: null });
  const tries = (report: string): Map<string, string> =>
    new Map(report.trim().split('\n').map(line => line.split(': ') as [string, string])); // prettier-ignore

  const done = (results: Map<string, string>): string[] =>
    [...results].filter(([, came]) => came === 'done').map(([what]) => what);

  /** Nothing of it worked, and none of its processes is left. */
  async function assertHeld(report: string, program: string, left: string[]): Promise<void> {
    const results = tries(report);
    const children = Number(results.get('children'));
    assert.ok(children > 0 && children <= 512, `${children} children`);
    results.delete('children');
    if (results.has('read its own image')) assert.equal(results.get('read its own image'), 'done');
    results.delete('read its own image');
    assert.deepEqual(done(results), [], report);
    assert.ok(results.size >= 11, report);
    assert.equal(visitors, 0);
    assert.deepEqual(await readdir(at('spool')), left);
    assert.deepEqual(await processesOf(program), []);
  }

  it('leaves nothing behind where it is cancelled while its cage is being built', async () => {
    const mark = `300.${process.pid}`;
    const words = await cageWords('sleep', {}, await cageUser());
    const marked = async () => {
      const lines = await Promise.all(
        (await readdir('/proc')).filter(Number).map(pid => readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '')),
      );
      return lines.filter(line => line.split('\0').includes(mark));
    };
    for (let i = 0; i < 100; i++) {
      const stop = new AbortController();
      setTimeout(() => stop.abort(), 1 + (i % 25) / 2);
      await assert.rejects(run('sleep', [mark], { within: words, signal: stop.signal }), { code: 'CANCELLED' });
    }
    for (let tries = 0; tries < 100 && (await marked()).length > 0; tries++) await delay(20);
    assert.deepEqual(await marked(), []);
  });

  it('this host builds cages', async () => assert.equal((await cages()).whole, true, (await cages()).detail));

  it('qemu-img reaches its two files and nothing else: no file, no socket, no process, no memory beyond its limits', async () => {
    const program = await hostileProgram(at('bin'), 'qemu-img', prey);
    const target = at('spool/target');
    const options = { source: source(), target, targetFormat: 'raw' as const, untrusted: true, maxFileSize: 8 * MiB };
    await withPath(at('bin'), () => convert(options));
    await assertHeld(await readFile(target, 'utf8'), program, ['source', 'target']);
    await rm(target);
    await rm(program);
  });

  it("so it is when it reads a volume of ours, as root, who may open what is a VM's: a VM may have changed it", async () => {
    const program = await hostileProgram(at('bin'), 'qemu-img', { ...prey, forks: 10 });
    const target = at('spool/target');
    await withPath(at('bin'), () => convert({ source: source(), target, targetFormat: 'raw', maxFileSize: 8 * MiB }));
    const worked = done(tries(await readFile(target, 'utf8')));
    assert.deepEqual(worked, [...(root ? ['be root'] : []), 'read its own image']);
    assert.equal(visitors, 0);
    assert.deepEqual(await processesOf(program), []);
    await rm(target);
    await rm(program);
  });

  it('xz reaches nothing at all', async () => {
    const program = await hostileProgram(at('bin'), 'xz', { ...prey, where: 'stdout' });
    const target = at('unpacked');
    const options = { source: at('spool/source'), compression: 'xz' as const, target, maxBytes: MiB, maxRatio: 1000 };
    await withPath(at('bin'), () => decompress(options));
    await assertHeld(await readFile(target, 'utf8'), program, ['source']);
    await rm(program);
  });

  it('an ordinary user of the agent builds the same cage', async () => {
    if (!root) return; // then all of this file has shown it
    const [uid, gid] = [65534, 65534];
    const place = await mkdtemp(join(tmpdir(), 'cistern-cage-user-'));
    try {
      await chown(place, uid, gid);
      const program = await hostileProgram(at('bin'), 'qemu-img', prey);
      const [reads, writes] = [join(place, 'source'), join(place, 'target')];
      for (const file of [reads, writes]) {
        await writeFile(file, '');
        await chown(file, uid, gid);
      }
      process.env['PATH'] = [at('bin'), path].join(delimiter);
      const [first, ...rest] = await cageWords('qemu-img', { reads: [reads], writes: [writes] }, { root: false, uid, gid });
      const limits = ['prlimit', '--nproc=512', `--as=${4 * 2 ** 30}`, `--fsize=${8 * MiB}`, '--', 'qemu-img'];
      await chmod(base, 0o755);
      await exec(first!, [...rest, ...limits, `{"filename":"${reads}"}`, writes], { uid, gid });
      const worked = done(tries(await readFile(writes, 'utf8')));
      // the user's own image is the user's own to change, but for the mount
      assert.deepEqual(worked, ['read its own image']);
      assert.deepEqual(await processesOf(program), []);
      await rm(program);
    } finally {
      process.env['PATH'] = path;
      await chmod(base, 0o700);
      await rm(place, { recursive: true });
    }
  });

  it('the real qemu-img works there, in closed folders, and files come back as they were lent', async () => {
    const before = await lstat(at('spool/source'));
    const target = at('spool/target');
    const options = { source: source(), target, targetFormat: 'qcow2' as const, untrusted: true, compress: true };
    await convert(options);
    await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', at('spool/source'), target]);
    const [after, made] = [await lstat(at('spool/source')), await lstat(target)];
    assert.deepEqual([after.uid, after.gid, after.mode], [before.uid, before.gid, before.mode]);
    assert.deepEqual([made.uid, made.gid], [process.getuid?.(), process.getgid?.()]);
    await rm(target);
  });

  it('it works wherever the spool lies, such as in memory below /dev, and complains of nothing', async () => {
    const spool = await mkdtemp('/dev/shm/cistern-cage-');
    try {
      const [reads, writes] = [join(spool, 'source'), join(spool, 'target')];
      await copyFile(at('spool/source'), reads);
      await convert({ source: { ...source(), path: reads }, target: writes, targetFormat: 'raw', untrusted: true });
      await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', reads, writes]);
      const { stderr } = await caged('qemu-img', { reads: [reads] }, undefined, within =>
        run('qemu-img', ['check', '-f', 'qcow2', '--', reads], { within }),
      );
      assert.equal(stderr, '');
    } finally {
      await rm(spool, { recursive: true });
    }
  });

  it('a cancel ends everything inside at once, and takes the files back', async () => {
    const program = await script(
      at('bin'),
      'qemu-img',
      `$SIG{TERM} = 'IGNORE'; fork; $| = 1; print "(1.00/100%)\\r"; sleep 600;`,
    );
    const cancel = new AbortController();
    const target = at('spool/target');
    const options = { source: source(), target, targetFormat: 'raw' as const, untrusted: true, signal: cancel.signal };
    await withPath(at('bin'), () =>
      assert.rejects(convert({ ...options, progress: () => cancel.abort() }), { code: 'CANCELLED' }),
    );
    await until(async () => (await processesOf(program)).length === 0);
    assert.deepEqual(await readdir(at('spool')), ['source']);
    const { uid, mode } = await lstat(at('spool/source'));
    assert.deepEqual([uid, mode & 0o777], [process.getuid?.(), 0o644]);
    await rm(program);
  });

  it('a worker that is killed takes everything inside with it', async () => {
    const program = await script(at('bin'), 'qemu-img', `$SIG{TERM} = 'IGNORE'; fork; fork; sleep 600;`);
    const module = new URL('../../agent/host/qemu-img.ts', import.meta.url).href;
    const options = { source: source(), target: at('spool/target'), targetFormat: 'raw', untrusted: true };
    const work = `import { convert } from ${JSON.stringify(module)}; await convert(${JSON.stringify(options)});`;
    const env = { PATH: [at('bin'), path].join(delimiter) };
    const worker = spawn(process.execPath, ['--input-type=module', '-e', work], { env, stdio: 'ignore' });
    try {
      await until(async () => (await processesOf(program)).length >= 4);
    } finally {
      worker.kill('SIGKILL');
    }
    await until(async () => (await processesOf(program)).length === 0);
    await rm(at('spool/target'));
    await rm(program);
    await chown(at('spool/source'), process.getuid!(), process.getgid!());
    await chmod(at('spool/source'), 0o644);
  });

  it('without bubblewrap nothing untrusted is opened, and the error names the package', async () => {
    const tools = at('tools');
    await mkdir(tools);
    for (const name of ['choom', 'unshare', 'prlimit', 'setpriv', 'qemu-img'])
      await symlink((await exec('which', [name])).stdout.trim(), join(tools, name));
    assert.match(await inFreshAgent(tools), /TOOL_MISSING.*bwrap.*bubblewrap/);
  });

  it('where the kernel refuses namespaces, limits alone hold, and that is told', async () => {
    if (!root) return; // an ordinary user has no privilege to lose
    const left = ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin', '--'];
    assert.match(await inFreshAgent(path, left), /^false limits on memory.*unshare failed: Operation not permitted/);
  });

  it('where it is bwrap that fails, nothing untrusted is opened, whatever it says', async () => {
    const broken = at('broken');
    await mkdir(broken);
    for (const words of ['No permissions to create new namespace', 'Invalid argument', 'Unknown option --ro-bind-fd']) {
      const program = await script(broken, 'bwrap', `print STDERR "bwrap: ${words}\\n"; exit 1;`);
      assert.match(await inFreshAgent([broken, path].join(delimiter)), new RegExp(`^TOOL_FAILED .*${words}`, 's'));
      await rm(program);
    }
  });

  it('the privileges that systemd leaves the agent are enough', async () => {
    if (!root) return; // systemd starts it as root
    const set = /^CapabilityBoundingSet=(.*)$/m.exec(read('systemd/cistern-agent.service'))?.[1]?.split(' ') ?? [];
    const some = set.map(name => name.toLowerCase().replace('cap_', '+')).join(',');
    const left = ['setpriv', `--bounding-set=-all,${some}`, '--inh-caps=-all', '--no-new-privs', '--'];
    assert.match(await inFreshAgent(path, left), /^true /);
  });

  /** What a process with this PATH, behind these words, finds out about cages. */
  async function inFreshAgent(PATH: string, words: string[] = []): Promise<string> {
    const module = new URL('../../agent/host/cage.ts', import.meta.url).href;
    const ask = `import { cages } from ${JSON.stringify(module)};
      await cages().then(({ whole, detail }) => console.log(whole, detail), error => console.log(error.code, error.message));`;
    const argv = [...words, process.execPath, '--input-type=module', '-e', ask];
    return (await exec(argv[0]!, argv.slice(1), { env: { PATH } })).stdout;
  }
});

/** Processes that run a script. */
async function processesOf(program: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter(name => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map(pid => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  return lines.filter(line => line.includes(program));
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 30_000; !(await holds());)
    assert.ok(performance.now() < end, 'it did not come to pass within 30 s');
}
