/** The disks of the lab's hosts: a Debian, built once and kept, and the agent of this checkout as its install script lays it out. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { ENABLED, FILES, MASKED, PACKAGES } from './guest.ts';

const ROOT = join(import.meta.dirname, '../..');
/** Where the package user-mode-linux puts its kernel's modules. */
const MODULES = '/usr/lib/uml/modules';
const BUILD_MS = 600_000;
/** What nobody has used for so long goes, with what a build that was killed has left. */
const KEEP_MS = 3 * 86_400_000;
const MIB = 2 ** 20;

export interface Disks {
  /** The root file system, ext4; hosts write to a copy-on-write file of their own. */
  root: string;
  /** The private key that root of every host believes. */
  key: string;
}

const tool = (file: string, args: string[]) => execa(file, args, { timeout: BUILD_MS, stdin: 'ignore' });

/** The Debian, from the folder of caches where it was built before; the mirror is that of this machine's own apt. */
export async function debian(): Promise<Disks> {
  const modules = await readdir(MODULES);
  const recipe = JSON.stringify([PACKAGES, MASKED, FILES, ENABLED, modules, build.toString()]);
  const name = createHash('sha256').update(recipe).digest('hex').slice(0, 16);
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'cistern-lab');
  const folder = join(cache, name);
  const disks = { root: join(folder, 'root.ext4'), key: join(folder, 'key') };
  if (existsSync(folder)) {
    await utimes(folder, new Date(), new Date());
    return disks;
  }
  await mkdir(cache, { recursive: true, mode: 0o700 });
  for (const old of await readdir(cache))
    if ((await stat(join(cache, old))).mtimeMs < Date.now() - KEEP_MS) await rm(join(cache, old), { recursive: true });
  const work = await mkdtemp(join(cache, 'building-'));
  try {
    await build(work, modules);
    await rename(work, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return disks;
}

async function build(work: string, modules: string[]): Promise<void> {
  const tree = join(work, 'tree');
  const exclude = ['man', 'locale', 'doc'].map(part => `--dpkgopt=path-exclude=/usr/share/${part}/*`);
  const options = ['--variant=minbase', '--mode=root', `--include=${PACKAGES.join(',')}`, ...exclude];
  await tool('mmdebstrap', [...options, '--aptopt=Apt::Install-Recommends "false"', 'bookworm', tree]);
  await mkdir(join(tree, 'lib/modules'), { recursive: true });
  for (const one of modules) {
    await cp(join(MODULES, one), join(tree, 'lib/modules', one), { recursive: true, dereference: false });
    await tool('depmod', ['-b', tree, one]);
  }
  for (const [path, { mode, text }] of Object.entries(FILES)) {
    await mkdir(dirname(join(tree, path)), { recursive: true });
    await writeFile(join(tree, path), text);
    await chmod(join(tree, path), mode ?? 0o644);
  }
  await tool('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'lab', '-f', join(work, 'key')]);
  await mkdir(join(tree, 'root/.ssh'), { recursive: true, mode: 0o700 });
  await writeFile(join(tree, 'root/.ssh/authorized_keys'), await readFile(join(work, 'key.pub')), { mode: 0o600 });
  await rm(join(tree, 'etc/hostname'), { force: true });
  await tool('systemctl', ['--root', tree, 'enable', ...ENABLED]);
  await tool('systemctl', ['--root', tree, 'add-wants', 'multi-user.target', 'rpc-statd.service']);
  await tool('systemctl', ['--root', tree, 'mask', ...MASKED.filter(unit => unit !== 'nfs-server.service')]);
  await tool('systemctl', ['--root', tree, 'disable', 'nfs-server.service']);
  await makeDisk(join(work, 'root.ext4'), tree, 4096);
  await rm(tree, { recursive: true });
}

/** The agent's disk: what `install.sh --root` makes of this checkout. */
export async function agentDisk(folder: string): Promise<string> {
  const stage = join(folder, 'stage');
  const packages = join(ROOT, 'node_modules');
  await tool(join(ROOT, 'systemd/install.sh'), ['--agent', '--root', stage, '--node-modules', packages]);
  const disk = join(folder, 'agent.ext4');
  await makeDisk(disk, stage, 1024);
  await rm(stage, { recursive: true });
  return disk;
}

/** No checksums of metadata: the kernel of User Mode Linux is slow at them. */
async function makeDisk(file: string, tree: string, mib: number): Promise<void> {
  await tool('truncate', ['-s', String(mib * MIB), file]);
  await tool('mke2fs', [
    '-q',
    '-F',
    '-t',
    'ext4',
    '-O',
    '^metadata_csum',
    '-E',
    'lazy_itable_init=1,nodiscard',
    '-m',
    '0',
    '-d',
    tree,
    file,
  ]);
}
