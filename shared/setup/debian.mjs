import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { outcome } from './npm.mjs';

/** Installs the Debian packages whose programs are missing. On other systems it throws and names the programs. */
export function setUpPrograms({ packages, why }) {
  const missing = Object.entries(packages).filter(([, programs]) => !programs.every(found));
  if (missing.length === 0) return;
  const names = missing.map(([name]) => name);
  const programs = missing.flatMap(([, list]) => list.filter(program => !found(program)));
  if (!found('apt-get'))
    throw new Error(
      `${programs.join(', ')} missing, needed ${why}. This is not Debian or Ubuntu: install what brings these programs (there: ${names.join(', ')}) and try again.`,
    );
  console.error(`Installing ${names.join(' ')} with apt-get${isRoot ? '' : ' through sudo'}, ${why}`);
  keepServersDown(names.flatMap(name => UNITS[name] ?? []));
  install(names);
  const still = programs.filter(program => !found(program));
  if (still.length > 0)
    throw new Error(
      `${still.join(', ')} still missing after installing ${names.join(' ')}: install what brings them and try again.`,
    );
}

const isRoot = process.getuid?.() === 0;
/** Daemons lie in sbin, which is not on the PATH of every user. */
const FOLDERS = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin'];

const found = program => FOLDERS.some(folder => existsSync(join(folder, program)));

/** Services that Debian starts as their package comes in. */
const UNITS = {
  'openssh-server': ['ssh.service', 'ssh.socket'],
  memcached: ['memcached.service'],
  'swift-proxy': ['swift-proxy.service'],
  'swift-account': swift('account', ['auditor', 'reaper', 'replicator']),
  'swift-container': swift('container', ['auditor', 'reconciler', 'replicator', 'sharder', 'sync', 'updater']),
  'swift-object': swift('object', ['auditor', 'reconstructor', 'replicator', 'updater']),
  'ceph-mon': ['ceph-mon.target'],
  'ceph-osd': ['ceph-osd.target'],
  radosgw: ['ceph-radosgw.target'],
  'ceph-base': ['ceph-crash.service'],
};

function swift(server, helpers) {
  return [`swift-${server}.service`, ...helpers.map(helper => `swift-${server}-${helper}.service`)];
}

/** A demo or a test must not open a server on this machine: those that they use are private child processes on loopback. */
function keepServersDown(units) {
  if (units.length === 0 || !existsSync('/run/systemd/system')) return;
  const list = units.join(' ');
  console.error(`Masking ${list} first, so that installing their packages starts nothing (undo: systemctl unmask ${list})`);
  asRoot(['systemctl', 'mask', ...units], 60);
}

function install(names) {
  // RUNLEVEL=1: where sysvinit scripts start servers, none of them is due in that runlevel.
  const apt = [
    'env',
    'DEBIAN_FRONTEND=noninteractive',
    'RUNLEVEL=1',
    'apt-get',
    '-qq',
    '-o',
    'DPkg::Lock::Timeout=300',
    '-o',
    'Dpkg::Use-Pty=0',
  ];
  const update = () => run([...apt, 'update'], 600);
  const add = () => run([...apt, 'install', '-y', '--no-install-recommends', '--', ...names], 900);
  if (!haveLists()) update();
  let done = add();
  if (done.status !== 0) {
    // Lists may be older than the mirror. What one broken source says is no reason to stop: the install is the judge.
    update();
    done = add();
  }
  if (done.status !== 0)
    throw new Error(`apt-get install ${names.join(' ')}: ${outcome(done)}. Install them by hand and try again.`);
}

function haveLists() {
  try {
    return readdirSync('/var/lib/apt/lists').some(name => /_Packages(\.|$)/.test(name));
  } catch {
    return false;
  }
}

function asRoot(argv, seconds) {
  const done = run(argv, seconds);
  if (done.status !== 0) throw new Error(`${argv.join(' ')}: ${outcome(done)}`);
}

/** Runs as root. apt's words go to standard error: standard output belongs to the command that the user typed. */
function run(argv, seconds) {
  if (!isRoot && !found('sudo'))
    throw new Error(`Root rights are needed for: ${argv.join(' ')}. There is no sudo here: run that as root, then try again.`);
  const [program, ...args] = isRoot ? argv : ['sudo', '--', ...argv];
  return spawnSync(program, args, { stdio: ['inherit', 2, 2], timeout: seconds * 1000 });
}
