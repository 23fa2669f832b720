/** Programs that write down how they were started and then become the real ones: put first in PATH. */
import { accessSync, appendFileSync, chmodSync, constants, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** What the agent starts itself. `choom` and `prlimit` start others, whose words follow theirs. */
const PROGRAMS = ['choom', 'prlimit', 'ssh', 'mkfifo', 'mount', 'mount.nfs', 'umount', 'sync', 'which', 'xz', 'sh', 'bash'];

export interface Recorder {
  /** The PATH to start an agent with. */
  path: string;
  /** argv of everything that was started so far, each with its name first. */
  started(): string[][];
}

/** Perl, as that is on every Debian and starts a program without a shell. */
const SCRIPT = `#!/usr/bin/perl
use strict; use warnings;
open(my $log, '>>', 'LOG') or die "LOG: $!";
syswrite($log, join(' ', map { unpack('H*', $_) } 'NAME', @ARGV) . "\\n");
exec { 'REAL' } 'NAME', @ARGV or die "REAL: $!";
`;

/** Makes the programs in the new folder `folder`. */
export function recorder(folder: string): Recorder {
  const log = join(folder, 'log');
  const path = process.env['PATH'] ?? '/usr/bin:/bin';
  mkdirSync(folder, { recursive: true });
  appendFileSync(log, '');
  for (const name of PROGRAMS) {
    const real = find(name, `${path}:/usr/sbin:/sbin`);
    if (real === undefined) throw new Error(`${name} is not installed`);
    writeFileSync(join(folder, name), SCRIPT.replaceAll('LOG', log).replaceAll('NAME', name).replaceAll('REAL', real));
    chmodSync(join(folder, name), 0o755);
  }
  const words = (line: string): string[] => line.split(' ').map(word => Buffer.from(word, 'hex').toString());
  return {
    path: `${folder}:${path}`,
    started: () => readFileSync(log, 'utf8').split('\n').filter(Boolean).map(words),
  };
}

function find(name: string, path: string): string | undefined {
  return path
    .split(delimiter)
    .map(folder => join(folder, name))
    .find(file => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}
