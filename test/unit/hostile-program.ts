import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * What a program tries that has been taken over by the image it reads. It is put first in PATH in the place of the real one; each try
 * is a line `NAME: what came of it` of its report. Perl is on every Debian, and below /usr, where a caged program can see it.
 */
const ATTACKS = `
use strict; use warnings; use Socket; use Fcntl;
my ($where, $secret, $elsewhere, $port, $socket, $victim, $forks) = (SETTINGS);
my @report;
sub told { my ($name, $ok) = @_; push @report, "$name: " . ($ok ? "done" : "$!") . "\\n"; }
told('read a file of root', open(my $a, '<', $secret));
told('read a file that everybody may read', open(my $b, '<', '/etc/passwd'));
told('write beside its own files', sysopen(my $c, "$elsewhere/dropped", O_WRONLY | O_CREAT));
told('write into a folder of everybody', sysopen(my $d, "/tmp/cistern-dropped-$$", O_WRONLY | O_CREAT));
told('write into memory that everybody shares', sysopen(my $e, "/dev/shm/cistern-dropped-$$", O_WRONLY | O_CREAT));
told('change a program', sysopen(my $f, '/usr/bin/perl', O_WRONLY | O_APPEND));
told('be root', ($< == 0 or eval { $< = 0; $> = 0; $< == 0 }));
told('end the agent', kill('TERM', $victim));
my ($tcp, $un);
socket($tcp, PF_INET, SOCK_STREAM, 0) && told('speak to a service of the host', connect($tcp, sockaddr_in($port, inet_aton('127.0.0.1'))));
socket($un, PF_UNIX, SOCK_STREAM, 0) && told('speak to a local socket', connect($un, sockaddr_un($socket)));
told('take 6 GiB of memory', do { my $pid = fork; if (!$pid) { open(STDERR, '>', '/dev/null'); my $n = 6 * 2**30 + $$; my $x = 'x' x $n; exit 0 } waitpid($pid, 0); $! = 12; $? == 0 });
my $children = 0;
for (1 .. $forks) { my $pid = fork; last unless defined $pid; if ($pid == 0) { sleep 600; exit } $children++ }
push @report, "children: $children\\n";
if ($where eq 'stdout') { print @report; exit }
my $target = $ARGV[-1];
my ($source) = "@ARGV" =~ /"filename":"([^"]+)"/;
told('change the image it reads', sysopen(my $g, $source, O_WRONLY));
told('read its own image', open(my $h, '<', $source));
$SIG{XFSZ} = 'IGNORE';
sysopen(my $out, $target, O_RDWR) or die "$target: $!";
sysseek($out, 2**31, 0);
told('write more than it may', syswrite($out, 'x') );
sysseek($out, 0, 0);
syswrite($out, join('', @report));
`;

export interface Prey {
  where: 'target' | 'stdout';
  /** A file that only root, or whoever runs the test, may read. */
  secret: string;
  /** A folder in which the files of the conversion lie. */
  elsewhere: string;
  /** Of a TCP server on loopback. */
  port: number;
  /** Path of a UNIX socket that everybody may connect to. */
  socket: string;
  /** Process id. */
  victim: number;
  /** Children that it tries to have. */
  forks: number;
}

/** Puts a hostile program of this name into a folder; returns its path. */
export async function hostileProgram(folder: string, name: string, prey: Prey): Promise<string> {
  const { where, secret, elsewhere, port, socket, victim, forks } = prey;
  const settings = [where, secret, elsewhere, port, socket, victim, forks].map(value => `'${value}'`).join(', ');
  return script(folder, name, ATTACKS.replace('SETTINGS', settings));
}

/** A Perl script as a program. */
export async function script(folder: string, name: string, perl: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, `#!/usr/bin/perl\n${perl}`);
  await chmod(path, 0o755);
  return path;
}
