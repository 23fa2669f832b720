import { execa } from 'execa';
import { availableParallelism, cpus, release, totalmem } from 'node:os';

/** Where figures were measured. */
export interface Machine {
  cpus: number;
  model: string;
  /** bytes */
  memory: number;
  kernel: string;
  node: string;
  qemuImg: string;
}

/** This machine. */
export async function machine(): Promise<Machine> {
  const { stdout } = await execa('qemu-img', ['--version'], { timeout: 10_000 });
  return {
    cpus: availableParallelism(),
    model: cpus()[0]?.model.trim() ?? 'unknown',
    memory: totalmem(),
    kernel: release(),
    node: process.versions.node,
    qemuImg: /version (\S+)/.exec(stdout)?.[1] ?? 'unknown',
  };
}
