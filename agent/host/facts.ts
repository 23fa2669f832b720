import { statfs } from 'node:fs/promises';
import { arch, availableParallelism, hostname, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { CisternError, wrapError } from '../../shared/errors.ts';
import type { DriverFacts, Facts } from '../../shared/model.ts';
import project from '../../package.json' with { type: 'json' };
import type { AgentConfig } from '../config.ts';
import { cages } from './cage.ts';
import { filesystems } from './mount-table.ts';
import { run } from './run.ts';

/** How each program tells its version, on stdout or stderr. scp cannot: it is of one piece with ssh. */
const TOOLS: Record<string, { program: string; args: string[]; version: RegExp }> = {
  'qemu-img': { program: 'qemu-img', args: ['--version'], version: /version (\d+[\w.]*)/ },
  'qemu-nbd': { program: 'qemu-nbd', args: ['--version'], version: /qemu-nbd (\d+[\w.]*)/ },
  rbd: { program: 'rbd', args: ['--version'], version: /version (\d+[\w.-]*)/ },
  rados: { program: 'rados', args: ['--version'], version: /version (\d+[\w.-]*)/ },
  ssh: { program: 'ssh', args: ['-V'], version: /OpenSSH_([\w.]+)/ },
  scp: { program: 'ssh', args: ['-V'], version: /OpenSSH_([\w.]+)/ },
  'mount.nfs': { program: 'mount.nfs', args: ['-V'], version: /nfs-utils ([\w.-]+)/ },
  bwrap: { program: 'bwrap', args: ['--version'], version: /bubblewrap ([\d.]+)/ },
  xz: { program: 'xz', args: ['--version'], version: /\(XZ Utils\) ([\w.]+)/ },
};

const startedAt = new Date(Date.now() - performance.now()).toISOString();

/** What this host is and can do. Programs are looked for once a minute at most; the rest is asked for each time. */
export async function hostFacts(config: AgentConfig, drivers: { primary: DriverFacts[]; backup: DriverFacts[] }): Promise<Facts> {
  return {
    agentVersion: project.version,
    hostname: hostname(),
    kernel: release(),
    arch: arch(),
    cpus: availableParallelism(),
    memory: totalmem(),
    tools: await tools(),
    filesystems: await filesystems(),
    cage: await cageFacts(),
    ...drivers,
    spool: await room(config.spoolDir ?? join(config.stateDir, 'spool')),
    startedAt,
  };
}

let found: { tools: Promise<Facts['tools']>; until: number } | undefined;

function tools(): Promise<Facts['tools']> {
  if (found === undefined || found.until < performance.now()) found = { tools: findTools(), until: performance.now() + 60_000 };
  return found.tools;
}

async function findTools(): Promise<Facts['tools']> {
  return Object.fromEntries(await Promise.all(Object.keys(TOOLS).map(async name => [name, await versionOf(name)] as const)));
}

/** How well untrusted images are locked in here. */
const cageFacts = (): Promise<Facts['cage']> =>
  cages().catch((error: unknown) => {
    // then imports fail with that very error
    if (error instanceof CisternError) return { whole: false, detail: error.message };
    throw error;
  });

/** null where the program is not installed, "unknown" where it says nothing that looks like a version. */
async function versionOf(name: string): Promise<string | null> {
  const tool = TOOLS[name];
  if (tool === undefined) return null;
  try {
    if (tool.program !== name && (await run('which', [name], { timeoutSeconds: 10, accept: [0, 1] })).exitCode === 1) return null;
    const { stdout, stderr } = await run(tool.program, tool.args, { timeoutSeconds: 10, accept: [0, 1] });
    return tool.version.exec(stdout + stderr)?.[1] ?? 'unknown';
  } catch (error) {
    if (!(error instanceof CisternError)) throw error;
    if (error.code === 'TOOL_MISSING') return null;
    if (error.code === 'TOOL_FAILED' || error.code === 'TIMEOUT') return 'unknown';
    throw error;
  }
}

/** Size and free bytes of the file system where `path` lies, or will once it is made. */
async function room(path: string): Promise<{ total: number; available: number }> {
  try {
    const { blocks, bavail, bsize } = await statfs(path);
    return { total: blocks * bsize, available: bavail * bsize };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && path !== '/') return room(dirname(path));
    throw wrapError(error, 'IO_ERROR', `measuring ${path}`);
  }
}
