import assert from 'node:assert/strict';
import { execa } from 'execa';
import { existsSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentConfig } from '../../agent/config.ts';
import { ControllerConfig } from '../../controller/config.ts';
import { read, repositoryFiles, ROOT } from './source-tree.ts';

const UNITS = ['cistern-agent', 'cistern-controller'] as const;
const timeout = 20_000;

/** The values of a setting of a unit, in order. */
const setting = (unit: string, name: string): string[] =>
  [...read(`systemd/${unit}.service`).matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map(match => match[1]!);

describe('systemd units', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'units-'));
    // The checkout is not installed where the units expect it, and systemd-analyze looks for the program.
    for (const unit of UNITS)
      await writeFile(
        unitFile(unit),
        read(`systemd/${unit}.service`).replaceAll('/opt/cistern/node_modules/.bin/node', process.execPath),
      );
  });
  after(() => rm(folder, { recursive: true }));
  const unitFile = (unit: string): string => join(folder, `${unit}.service`);

  for (const unit of UNITS) {
    it(`${unit}: systemd understands every line`, async () => {
      const { all } = await execa('systemd-analyze', ['verify', '--man=no', '--recursive-errors=no', unitFile(unit)], {
        all: true,
        timeout,
      });
      assert.equal(all, '');
    });
  }

  for (const [unit, limit] of [
    // it becomes another user in the cages of untrusted images: 0.3 for SETUID, SETGID and SETPCAP, 0.1 for namespaces
    ['cistern-agent', 56],
    ['cistern-controller', 20],
  ] as const) {
    it(`${unit}: is exposed no more than ${limit / 10} of 10`, async () => {
      const args = ['security', '--offline=yes', '--no-pager', `--threshold=${limit}`, unitFile(unit)];
      const { exitCode, stdout } = await execa('systemd-analyze', args, { reject: false, timeout });
      assert.equal(exitCode, 0, stdout);
    });
  }

  it('the agent mounts in the mount namespace of the host: nothing gives it one of its own', () => {
    // Source: systemd.exec(5), and exec_needs_mount_namespace() in systemd's src/core/execute.c.
    const own =
      /^(Protect(System|Home|Proc|Kernel\w+|ControlGroups|Hostname)|Private\w+|ProcSubset|DynamicUser|Root(Directory|Image)|MountFlags|MountAPIVFS|Bind\w*Paths|TemporaryFileSystem|(Read(Only|Write)|Inaccessible|Exec|NoExec)Paths|ExtensionImages|ExtensionDirectories|MountImages|LogNamespace|JoinsNamespaceOf|IPCNamespacePath|(Runtime|Cache|Logs|Configuration)Directory)=/gm;
    assert.deepEqual(
      [...read('systemd/cistern-agent.service').matchAll(own)].map(match => match[0]),
      [],
    );
  });

  it('both may do what Node needs at start (memory protection keys), and send their messages through a child', () => {
    for (const unit of UNITS) {
      assert.ok(setting(unit, 'SystemCallFilter')[0]!.split(' ').includes('@pkey'));
      assert.deepEqual(
        [setting(unit, 'Type'), setting(unit, 'NotifyAccess'), setting(unit, 'MemoryDenyWriteExecute')],
        [['notify'], ['all'], []],
      );
    }
  });

  it('start what is there, with the folders that the settings name', () => {
    for (const unit of UNITS) {
      const [node, entry, option, config] = setting(unit, 'ExecStart')[0]!.split(' ');
      assert.equal(node, '/opt/cistern/node_modules/.bin/node');
      assert.ok(existsSync(join(ROOT, entry!.replace('/opt/cistern/', ''))), entry);
      assert.deepEqual([option, config], ['--config', `/etc/cistern/${unit.replace('cistern-', '')}.json`]);
      assert.deepEqual(setting(unit, 'StateDirectory'), [unit]);
    }
    assert.equal(AgentConfig.parse(JSON.parse(read('systemd/agent.json'))).stateDir, '/var/lib/cistern-agent');
    assert.equal(ControllerConfig.parse(JSON.parse(read('systemd/controller.json'))).stateDir, '/var/lib/cistern-controller');
    assert.match(read('systemd/tmpfiles.d/cistern.conf'), new RegExp(`^d +${AgentConfig.parse({}).mountDir} `, 'm'));
  });

  it('alerts ask for metrics that exist', () => {
    const product = repositoryFiles('{agent,controller}/**/*.ts').map(read).join('\n');
    const names = new Set(read('systemd/alerts.yml').match(/\bcistern_\w+/g));
    assert.ok(names.size >= 4);
    assert.deepEqual(
      [...names].filter(name => !product.includes(name)),
      [],
    );
  });
});

describe('systemd/install.sh', () => {
  let root: string;
  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'install-'));
  });
  after(() => rm(root, { recursive: true }));

  const install = (...args: string[]) =>
    execa('sh', [join(ROOT, 'systemd/install.sh'), '--root', root, '--node-modules', modules(), ...args], { timeout });
  /** Stands for the packages, which take a minute to install. */
  const modules = (): string => join(root, 'modules');
  const inRoot = (path: string): Promise<string> => readFile(join(root, path), 'utf8');

  it('stages what was asked for, and again over it, keeping settings and removing old files', async () => {
    await mkdir(join(modules(), '.bin'), { recursive: true });
    await install('--agent');
    assert.equal(await inRoot('etc/systemd/system/cistern-agent.service'), read('systemd/cistern-agent.service'));
    assert.equal(existsSync(join(root, 'etc/systemd/system/cistern-controller.service')), false);
    assert.match(
      await inRoot('usr/local/bin/cistern'),
      /^exec \/opt\/cistern\/node_modules\/.bin\/node \/opt\/cistern\/controller\/cli\/cistern.js "\$@"$/m,
    );
    assert.equal((await lstat(join(root, 'opt/cistern/agent/main.ts'))).mode & 0o777, 0o644);

    await writeFile(join(root, 'etc/cistern/agent.json'), '{"port": 9}');
    await writeFile(join(root, 'opt/cistern/agent/gone-in-this-version.ts'), '');
    await install();
    assert.equal(await inRoot('etc/cistern/agent.json'), '{"port": 9}');
    assert.equal(existsSync(join(root, 'opt/cistern/agent/gone-in-this-version.ts')), false);
    assert.equal(await inRoot('etc/systemd/system/cistern-controller.service'), read('systemd/cistern-controller.service'));
  });

  it('stages user and folders that systemd makes', async () => {
    await mkdir(join(root, 'etc'), { recursive: true });
    await execa('systemd-sysusers', [`--root=${root}`, join(ROOT, 'systemd/sysusers.d/cistern.conf')], { timeout });
    assert.match(await inRoot('etc/passwd'), /^cistern:x:\d+:\d+:cistern controller:\/var\/lib\/cistern-controller:\S+nologin$/m);
    assert.match(await inRoot('etc/passwd'), /^cistern-qemu:x:\d+:\d+:[^:]*:\/:\S+nologin$/m);
    await execa('systemd-tmpfiles', [`--root=${root}`, '--create', join(ROOT, 'systemd/tmpfiles.d/cistern.conf')], { timeout });
    assert.ok((await lstat(join(root, 'run/cistern/mnt'))).isDirectory());
  });

  it('refuses what it does not know, and says how it is called', async () => {
    const { exitCode, stderr } = await execa('sh', [join(ROOT, 'systemd/install.sh'), '--everything'], {
      reject: false,
      timeout,
    });
    assert.equal(exitCode, 2);
    assert.match(stderr, /^usage: .*--agent/);
  });
});
