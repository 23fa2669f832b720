import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/**
 * Installs the npm packages with `npm ci` where those in node_modules are not the ones of package-lock.json, and makes sure that
 * the Node 24 that comes with them runs here. npm writes node_modules/.package-lock.json last, so it tells what is there.
 */
export function setUpNpm(root, dev) {
  if (!installed(root, dev)) {
    console.error(`Installing the npm packages of package-lock.json into ${join(root, 'node_modules')}`);
    const scope = dev ? '--include=dev' : '--omit=dev';
    const done = spawnSync(
      'npm',
      ['ci', '--include=optional', scope, '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'],
      {
        cwd: root,
        env: { ...process.env, PATH: pathWithout(join(root, 'node_modules')) },
        stdio: ['ignore', 2, 2],
        timeout: 15 * 60_000,
      },
    );
    if (done.status !== 0)
      throw new Error(
        `npm ci in ${root}: ${outcome(done)}. Check the network and the npm registry (npm config get registry), then try again.`,
      );
  }
  checkNode(join(root, 'node_modules', '.bin', 'node'));
}

/** Whether node_modules holds every package of the lock file in its version (platform packages of other machines aside). */
export function installed(root, dev) {
  const marker = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(marker)) return false;
  const there = JSON.parse(readFileSync(marker, 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(wanted).every(
    ([path, entry]) =>
      path === '' ||
      there[path]?.version === entry.version ||
      (!there[path] && (entry.optional || entry.devOptional || (entry.dev && !dev))),
  );
}

function checkNode(node) {
  if (process.execPath.includes('node_modules') && process.version.startsWith('v24.')) return;
  const said = spawnSync(node, ['--version'], { encoding: 'utf8', timeout: 10_000 });
  if (said.stdout?.startsWith('v24.')) return;
  const platform = `${process.platform}-${process.arch}`;
  throw new Error(
    `${node} --version: ${outcome(said)}. cistern brings Node 24 for linux-x64 and linux-arm64 (glibc); this is ${platform}. Remove node_modules and try again, or use such a machine.`,
  );
}

/** PATH without the folder that is about to be replaced: npm must not run on a node that it deletes. */
const pathWithout = folder =>
  (process.env.PATH ?? '')
    .split(delimiter)
    .filter(entry => !entry.startsWith(folder))
    .join(delimiter);

/** What came back from a child process, in words. */
export const outcome = done =>
  done.error?.message ??
  (done.signal ? `ended by ${done.signal}` : `exit code ${done.status}${done.stdout ? `, said ${done.stdout.trim()}` : ''}`);
