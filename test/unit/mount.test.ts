import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { filesystems, mountAt, mountNfs, nfsSource, unmount } from '../../agent/host/mount.ts';
import { mountOptions } from '../../agent/host/mount-options.ts';
import { parseMountInfo } from '../../agent/host/mount-table.ts';
import { run } from '../../agent/host/run.ts';
import { CisternError } from '../../shared/errors.ts';

const fails = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof CisternError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, words);
  return true;
};

describe('mount options', () => {
  it('passes what a pool may set and always adds nosuid, nodev and noexec', () => {
    assert.equal(
      mountOptions(['hard', 'nconnect=8', 'timeo=600', 'nosuid']),
      'hard,nconnect=8,timeo=600,retry=0,nosuid,nodev,noexec',
    );
    assert.equal(mountOptions(['retry=2']), 'retry=2,nosuid,nodev,noexec');
  });

  it('refuses everything else and lists what is allowed', () => {
    const bad = [
      'suid',
      'dev',
      'exec',
      'vers=3',
      'hard,suid',
      'hard=1',
      'nconnect',
      'nconnect=99',
      'sec=krb5,suid',
      'rsize=1048576\nsuid',
      '',
      '=',
      '-o',
      'fsc',
      'x-systemd.automount',
      'bind',
      'remount',
      'constructor',
      '__proto__',
    ];
    for (const option of bad)
      assert.throws(() => mountOptions([option]), fails('MOUNT_OPTION_REFUSED', /allowed are hard, soft,/), option);
    assert.throws(() => mountOptions(['hard', 'hard']), fails('MOUNT_OPTION_REFUSED', /twice/));
  });

  it('never lets through a word that was not allowed, whatever is asked for', () => {
    const names = ['hard', 'soft', 'timeo', 'proto', 'sec', 'suid', 'exec', 'dev', 'user', 'nosuid', 'addr', 'clientaddr'];
    const piece = fc.oneof(
      fc.string(),
      fc.constantFrom(...names),
      fc.constantFrom(',', '=', '1', 'tcp', '\n', ' ', 'suid', ',suid'),
    );
    const option = fc.array(piece, { minLength: 1, maxLength: 4 }).map(parts => parts.join(''));
    fc.assert(
      fc.property(fc.array(option, { maxLength: 4 }), options => {
        let value: string;
        try {
          value = mountOptions(options);
        } catch (error) {
          return error instanceof CisternError && error.code === 'MOUNT_OPTION_REFUSED';
        }
        const words = value.split(',');
        assert.deepEqual(words.slice(-3), ['nosuid', 'nodev', 'noexec']);
        return words.every(word => /^[a-z_]+(=[a-z0-9]+)?$/.test(word) && !/^(suid|dev|exec|user|addr|clientaddr)\b/.test(word));
      }),
      { numRuns: 2000 },
    );
  });
});

describe('NFS server and export', () => {
  it('become what mount.nfs takes', () => {
    assert.equal(nfsSource('nas.example.org', '/srv/pool/'), 'nas.example.org:/srv/pool');
    assert.equal(nfsSource('192.0.2.7', '/'), '192.0.2.7:/');
    assert.equal(nfsSource('2001:db8::7', '/a'), '[2001:db8::7]:/a');
  });

  it('are refused where they could mean something else', () => {
    for (const server of ['-o', '', 'a b', 'a,b', 'a:b', 'a/b', 'nas\n', '[::1]', '-', 'a..b', 'é'])
      assert.throws(() => nfsSource(server, '/a'), fails('POOL_CONFIG', /no host name/), server);
    for (const path of ['', 'a', '-a', '/a b', '/a,suid', '/a\n', '/a\0', '/a\\040', `/${'a'.repeat(2000)}`])
      assert.throws(() => nfsSource('nas', path), fails('POOL_CONFIG', /export/), path);
  });

  it('never hold a comma, a blank or a leading hyphen, whatever is given', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (server, path) => {
        try {
          return /^[^-\s,][^\s,]*$/.test(nfsSource(server, `/${path}`));
        } catch (error) {
          return error instanceof CisternError && error.code === 'POOL_CONFIG';
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe('the mount table', () => {
  let folder: string;
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'mount-'))));
  afterEach(() => rmSync(folder, { recursive: true }));
  const tmpfs = (target: string, source = 'tmpfs') => run('mount', ['-t', 'tmpfs', '-o', 'size=1m', '--', source, target]);

  it('is read with its optional fields and escapes', () => {
    const text =
      '36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n' +
      '99 35 0:50 / /mnt/with\\040blank\\134x rw,nosuid - nfs4 nas:/srv/p rw,vers=4.2\n\ngarbage\n';
    assert.deepEqual(parseMountInfo(text), [
      { target: '/mnt2', source: '/dev/root', type: 'ext3', options: ['rw', 'noatime', 'errors=continue'] },
      { target: '/mnt/with blank\\x', source: 'nas:/srv/p', type: 'nfs4', options: ['rw', 'nosuid', 'vers=4.2'] },
    ]);
  });

  it('shows a mount while it is there, on exactly its path, and unmount may be repeated', async () => {
    const target = join(folder, 'a b\\ü\t1');
    mkdirSync(target);
    assert.equal(await mountAt(target), undefined);
    await tmpfs(target, 'some source');
    const found = await mountAt(`${target}/`);
    assert.equal(found?.type, 'tmpfs');
    assert.equal(found.source, 'some source');
    assert.equal((await mountAt(target, '1'))?.type, 'tmpfs');
    assert.equal(await mountAt(folder), undefined);
    await unmount(target);
    assert.equal(await mountAt(target), undefined);
    await unmount(target);
  });

  it('keeps a mount that is in use, unless told to detach it', async () => {
    await tmpfs(folder);
    writeFileSync(join(folder, 'f'), 'x');
    {
      await using _file = await open(join(folder, 'f'));
      await assert.rejects(unmount(folder), fails('IN_USE', /busy/));
      await unmount(folder, { lazy: true });
      assert.equal(await mountAt(folder), undefined);
    }
  });

  it('is not mounted over when it shows something else there, even under the same source name', async () => {
    await tmpfs(folder, '127.0.0.1:/srv/pool');
    try {
      const mounting = mountNfs({ server: '127.0.0.1', export: '/srv/pool', version: '4.2', options: [], target: folder });
      await assert.rejects(mounting, fails('POOL_IDENTITY', /\(tmpfs\) is mounted there/));
    } finally {
      await unmount(folder);
    }
  });

  it('says what failed where nobody exports, and that the kernel lacks NFS where it does', async function () {
    this.timeout(60_000);
    // Nothing listens on port 1 of loopback; a kernel without NFS does not even get so far.
    const mounting = mountNfs({
      server: '127.0.0.1',
      export: '/nothing',
      version: '4.2',
      options: ['port=1', 'soft', 'timeo=10', 'retrans=1'],
      target: folder,
    });
    const hasNfs = (await filesystems()).includes('nfs4');
    await assert.rejects(
      mounting,
      hasNfs ? fails('MOUNT_FAILED', /127\.0\.0\.1:\/nothing/) : fails('KERNEL_LACKS_NFS', /no file system nfs4/),
    );
    const old = mountNfs({
      server: '127.0.0.1',
      export: '/nothing',
      version: '3',
      options: ['nolock', 'port=1', 'mountport=1', 'proto=tcp'],
      target: folder,
    });
    await assert.rejects(old, hasNfs ? fails('MOUNT_FAILED', /NFS version 3/) : fails('KERNEL_LACKS_NFS', /no file system nfs/));
    assert.equal(await mountAt(folder), undefined);
  });

  it('refuses mount points that are relative or the root', async () => {
    for (const target of ['/', 'mnt', '/mnt/../etc'])
      await assert.rejects(
        mountNfs({ server: 'nas', export: '/a', version: '4', options: [], target }),
        fails('POOL_CONFIG', /mount point/),
      );
  });
});
