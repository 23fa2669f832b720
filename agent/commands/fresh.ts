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
  /** Others made the source: it is read in a cage, and the target may take so many bytes; more is IMAGE_EXPANSION. */
  untrusted?: { maxBytes: number };
}

/** Copies a disk into a new file in the spool, with progress. A full spool is NO_CAPACITY. The source of it stays. */
export async function makeFresh(options: Fresh, ctx: TaskContext): Promise<void> {
  const { source, target, format, compress = false, virtualSize, stage, untrusted } = options;
  const tooMuch = new AbortController();
  const timer = setInterval(() => void look().catch(() => undefined), LOOK); // not made yet, or removed again: nothing to look at
  const tooLarge = (): CisternError =>
    new CisternError(
      'IMAGE_EXPANSION',
      `converting ${source.path}: it expands to more than ${untrusted?.maxBytes} bytes (maxExpansion and maxImageSize in the agent's configuration)`,
    );
  const look = async (): Promise<void> => {
    const taken = (await stat(target)).blocks * 512;
    if (untrusted !== undefined && taken > untrusted.maxBytes) tooMuch.abort(tooLarge());
  };
  try {
    await convert({
      source,
      target,
      targetFormat: format,
      compress,
      // a disk of others takes no more time than what it may become: one that shows the same zeros for ever takes none of that
      virtualSize: Math.min(virtualSize, untrusted?.maxBytes ?? Infinity),
      ...(untrusted && { untrusted: true, maxFileSize: largest(format, virtualSize, untrusted.maxBytes) }),
      signal: AbortSignal.any([ctx.signal, tooMuch.signal]),
      progress: (done, total) => ctx.progress(stage, done, total, 'percent'),
    });
    await look(); // it may have been quicker than the first one
    if (tooMuch.signal.aborted) throw tooMuch.signal.reason;
    await inspectCopy(target, { format, virtualSize });
  } catch (error) {
    if (error instanceof CisternError && error.code === 'POOL_FULL')
      throw new CisternError('NO_CAPACITY', `the spool folder is full: ${error.message}`, { cause: error });
    // the kernel's own stop is there before the next look
    if (untrusted !== undefined && error instanceof CisternError && SIZE_LIMIT.test(error.message)) throw tooLarge();
    throw error;
  } finally {
    clearInterval(timer);
  }
}

/** EFBIG, or death by SIGXFSZ: setrlimit(2), RLIMIT_FSIZE. */
const SIZE_LIMIT = /File too large|SIGXFSZ|exit code 153/;

/** No honest file of a disk of `virtualSize` bytes is longer. A raw one has holes; the tables of a qcow2 take less than a hundredth. */
const largest = (format: ImageFormat, virtualSize: number, maxBytes: number): number =>
  format === 'raw' ? Math.ceil(virtualSize / 4096) * 4096 : Math.min(Math.ceil(virtualSize * 1.01) + 64 * 2 ** 20, maxBytes);

/** How many bytes an untrusted file may become: what is small may grow to a GiB, since empty disks pack well and that fills no spool. */
export const expansionLimit = (size: number, { maxExpansion, maxImageSize }: TaskContext['config']): number =>
  Math.min(maxImageSize, Math.max(GiB, size * maxExpansion));
