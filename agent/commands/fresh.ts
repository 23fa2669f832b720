import { stat } from 'node:fs/promises';
import { CisternError } from '../../shared/errors.ts';
import type { ImageFormat } from '../../shared/model.ts';
import { inspectCopy } from '../host/inspect-copy.ts';
import { convert, type QemuDisk } from '../host/qemu-img.ts';
import type { TaskContext } from './handler.ts';

const GiB = 2 ** 30;
/** How often the file that grows is looked at, in ms. */
const LOOK = 500;

export interface Fresh {
  source: QemuDisk;
  /** A file in the spool that is not there yet. */
  target: string;
  format: ImageFormat;
  compress?: boolean;
  virtualSize: number;
  /** For progress: convert, flatten. */
  stage: string;
  /** The target may take so many bytes; more is IMAGE_EXPANSION. Not given: as many as there are. */
  maxBytes?: number;
}

/** Copies a disk into a new file in the spool, with progress. A full spool is NO_CAPACITY. The source of it stays. */
export async function makeFresh(options: Fresh, ctx: TaskContext): Promise<void> {
  const { source, target, format, compress = false, virtualSize, stage, maxBytes } = options;
  const tooMuch = new AbortController();
  const timer = setInterval(() => void look().catch(() => undefined), LOOK); // not made yet, or removed again: nothing to look at
  const look = async (): Promise<void> => {
    const taken = (await stat(target)).blocks * 512;
    if (maxBytes !== undefined && taken > maxBytes)
      tooMuch.abort(
        new CisternError(
          'IMAGE_EXPANSION',
          `converting ${source.path}: it expands to more than ${maxBytes} bytes (maxExpansion and maxImageSize in the agent's configuration)`,
        ),
      );
  };
  try {
    await convert({
      source,
      target,
      targetFormat: format,
      compress,
      virtualSize,
      signal: AbortSignal.any([ctx.signal, tooMuch.signal]),
      progress: (done, total) => ctx.progress(stage, done, total, 'percent'),
    });
    await inspectCopy(target, { format, virtualSize });
  } catch (error) {
    if (error instanceof CisternError && error.code === 'POOL_FULL')
      throw new CisternError('NO_CAPACITY', `the spool folder is full: ${error.message}`, { cause: error });
    throw error;
  } finally {
    clearInterval(timer);
  }
}

/** How many bytes an untrusted file may become: what is small may grow to a GiB, since empty disks pack well and that fills no spool. */
export const expansionLimit = (size: number, { maxExpansion, maxImageSize }: TaskContext['config']): number =>
  Math.min(maxImageSize, Math.max(GiB, size * maxExpansion));
