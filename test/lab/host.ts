/** A host of the lab: a Linux kernel of its own as processes of this machine (User Mode Linux), with systemd, reached by SSH. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import type { Disks } from './image.ts';
import { READY } from './guest.ts';
import { tapOf } from './network.ts';

const BOOT_MS = 120_000;
const RUN_MS = 120_000;
const MEMORY = '768M';

export interface LabHost extends AsyncDisposable {
  name: string;
  address: string;
  /** The last lines of its console, of all its runs. */
  console: string[];
  /** Runs a line of shell there as root; throws where it fails. Returns what it printed. */
  run(line: string, options?: { input?: string; timeout?: number; reject?: boolean }): Promise<string>;
  /** Takes the cable out, and puts it in again. */
  cut(): Promise<void>;
  heal(): Promise<void>;
  /** Off at once, whatever it was doing. What its disk had written stays. */
  powerCut(): Promise<void>;
  /** On, until it may be logged in to. */
  start(): Promise<void>;
}

export interface HostOptions extends Disks {
  name: string;
  /** Last part of its address, and number of its tap. */
  number: number;
  address: string;
  agent: string;
  /** For its disk and sockets. */
  folder: string;
  /** A folder on a tmpfs from which programs may run: the host's memory. */
  memory: string;
}

export async function bootHost(options: HostOptions): Promise<LabHost> {
  const { name, number, address, key, folder } = options;
  await mkdir(folder, { recursive: true });
  const lines: string[] = [];
  let child: ChildProcess | undefined;
  const link = (state: 'up' | 'down') => execa('ip', ['link', 'set', tapOf(number), state], { timeout: 10_000 });
  const ssh = ['-q', '-i', key, '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'ConnectTimeout=20', '-o', 'BatchMode=yes']; // prettier-ignore
  const host: LabHost = {
    name,
    address,
    console: lines,
    async run(line, { input, timeout = RUN_MS, reject = true } = {}) {
      const ran = await execa('ssh', [...ssh, `root@${address}`, line], { timeout, reject: false, all: true, ...(input !== undefined ? { input } : { stdin: 'ignore' as const }) }); // prettier-ignore
      if (reject && ran.exitCode !== 0) throw new Error(`${name}: ${line}: exit code ${ran.exitCode}: ${ran.all}`);
      return ran.stdout;
    },
    cut: async () => void (await link('down')),
    heal: async () => void (await link('up')),
    async powerCut() {
      const running = child;
      child = undefined;
      if (running?.pid === undefined || running.exitCode !== null || running.signalCode !== null) return;
      const ended = once(running, 'exit');
      process.kill(-running.pid, 'SIGKILL');
      await ended;
    },
    async start() {
      child = spawn('linux.uml', kernelWords(options), {
        detached: true, // leads a group: the kernel, and a process for each of its own
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, TMPDIR: options.memory },
        cwd: folder,
      });
      await ready(child, name, lines);
    },
    async [Symbol.asyncDispose]() {
      await host.powerCut();
      await rm(folder, { recursive: true, force: true });
    },
  };
  try {
    await host.start();
  } catch (error) {
    await host[Symbol.asyncDispose]();
    throw error;
  }
  return host;
}

function kernelWords({ name, number, address, folder, root, agent }: HostOptions): string[] {
  return [
    ...[`umid=${name}`, `uml_dir=${folder}/`, `mem=${MEMORY}`, `ubd0=${join(folder, 'cow')},${root}`, `ubd1r=${agent}`],
    ...['root=/dev/ubda', 'rw', `vec0:transport=tap,ifname=${tapOf(number)},depth=128,gro=1`],
    ...['con=null', 'con0=null,fd:1', 'con1=null,fd:1', 'ssl=null', 'systemd.unified_cgroup_hierarchy=1', 'quiet'],
    ...[`lab.name=${name}`, `lab.ip=${address}`],
  ];
}

/** Ends when the console says that it is up. */
async function ready(child: ChildProcess, name: string, lines: string[]): Promise<void> {
  const up = Promise.withResolvers<void>();
  const late = setTimeout(() => up.reject(new Error('it took too long')), BOOT_MS);
  child.once('error', up.reject).once('exit', code => up.reject(new Error(`its kernel ended with ${code}`)));
  for (const stream of [child.stdout!, child.stderr!])
    createInterface({ input: stream }).on('line', line => {
      lines.push(line);
      if (lines.length > 500) lines.shift();
      if (line.includes(READY)) up.resolve();
    });
  try {
    await up.promise;
  } catch (error) {
    throw new Error(`starting ${name}: ${(error as Error).message}; its console said:\n${lines.slice(-20).join('\n')}`, {
      cause: error,
    });
  } finally {
    clearTimeout(late);
  }
}
