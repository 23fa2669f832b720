import { CisternError } from '../../shared/errors.ts';
import type { SourceFormat } from '../../shared/model.ts';
import { openImage } from './inspect/file.ts';
import type { ImageFile, Judge } from './inspect/file.ts';
import { judgeQcow2 } from './inspect/qcow2.ts';
import { judgeRaw, unknownFormat } from './inspect/raw.ts';
import { sniffFormats, SNIFF_LENGTH, sniffRaw, VMDK_TEXT } from './inspect/sniff.ts';
import type { Magic } from './inspect/sniff.ts';
import { judgeVdi } from './inspect/vdi.ts';
import { judgeVhdx } from './inspect/vhdx.ts';
import { checkNoPath } from './inspect/vmdk-descriptor.ts';
import { judgeVmdk } from './inspect/vmdk.ts';

/**
 * How many times larger than its file a disk may be. What is empty packs well: the L1 table of a qcow2 with the usual clusters has 8
 * bytes for 512 MiB, and `qemu-img create` makes 1 TiB of 208 KiB, so every disk made with the defaults stays below this.
 */
export const MAX_SPARSENESS = 2 ** 26;

export interface InspectOptions {
  /** What the user says that it is; only then is a disk without any known mark taken for raw. */
  declared?: SourceFormat | null;
  /** Largest disk, in bytes, that a guest may see. */
  maxVirtualSize: number;
  /** Largest file, in bytes. */
  maxImageSize?: number;
}

export interface Inspected {
  format: SourceFormat;
  /** Bytes of the disk that a guest sees, as `qemu-img info` would say. */
  virtualSize: number;
  /** Bytes of the file. */
  size: number;
}

const JUDGES: Record<Exclude<SourceFormat, 'raw'>, Judge> = {
  qcow2: judgeQcow2,
  vmdk: judgeVmdk,
  vhdx: judgeVhdx,
  vdi: judgeVdi,
};

/**
 * Judges an untrusted image file by its headers and tables, before any qemu program sees it: at most 8 MiB are read, no file that it
 * names is opened, nothing is run. What passes names no other file, is not encrypted, has no features that are not known and no
 * internal snapshots (a copy would silently lose them), points nowhere outside of itself, is as large as its tables say, and is one
 * format only. Everything else is refused with its IMAGE_* code; a file that cannot be read is IO_ERROR. How much its data expands is
 * not judged here, but where it is converted.
 */
export async function inspectImage(path: string, options: InspectOptions): Promise<Inspected> {
  await using image = await openImage(path);
  return await judgeImage(image, path, options);
}

/** The judgement of `inspectImage` on an image that is open; `name` is for the words of errors. */
export async function judgeImage(image: ImageFile, name: string, options: InspectOptions): Promise<Inspected> {
  try {
    return await judge(image, options);
  } catch (error) {
    throw named(error, name);
  }
}

/** The error with the file's name in its words. No bytes may crash the judge: a read past a buffer's end is a lie of the image. */
function named(error: unknown, path: string): unknown {
  if (error instanceof CisternError) {
    return new CisternError(error.code, `inspecting ${path}: ${error.message}`, { cause: error, action: error.action });
  }
  if (error instanceof RangeError)
    return new CisternError('IMAGE_CORRUPT', `inspecting ${path}: ${error.message}`, { cause: error });
  return error;
}

async function judge(image: ImageFile, options: InspectOptions): Promise<Inspected> {
  const { size } = image;
  const { maxImageSize = Infinity, maxVirtualSize } = options;
  if (size === 0) throw new CisternError('IMAGE_TRUNCATED', 'the file is empty');
  if (size > maxImageSize)
    throw new CisternError('IMAGE_TOO_LARGE', `the file has ${size} bytes, maxImageSize allows ${maxImageSize}`);
  const head = await image.read(0, Math.min(size, SNIFF_LENGTH), 'the head');
  const found = sniffFormats(head);
  if (found.some(({ name }) => name === VMDK_TEXT)) checkNoPath(head.toString('latin1'));
  const format = decide(found, options.declared ?? null);
  if (format === null || format === 'raw') {
    const virtualSize = await judgeRaw(image, head, format === 'raw', maxVirtualSize);
    return { format: 'raw', virtualSize, size };
  }
  const { virtualSize, quiet } = await JUDGES[format](image, maxVirtualSize);
  if (virtualSize > size * MAX_SPARSENESS)
    throw new CisternError(
      'IMAGE_EXPANSION',
      `the file has ${size} bytes, the disk ${virtualSize}: more than ${MAX_SPARSENESS} times as many`,
    );
  const other = sniffRaw(head).find(mark => mark.at >= quiet[0] && mark.at < quiet[1]);
  if (other)
    throw new CisternError(
      'IMAGE_AMBIGUOUS',
      `it is ${format}, and its unused byte ${other.at} starts the mark of ${other.name}`,
    );
  return { format, virtualSize, size };
}

/** The one format to judge it by, or null: no magic, and nothing declared. */
function decide(found: Magic[], declared: SourceFormat | null): SourceFormat | null {
  const [first, second] = found;
  if (!first) {
    if (declared === null || declared === 'raw') return declared;
    throw new CisternError('IMAGE_FORMAT_MISMATCH', `it is declared ${declared}, but has no ${declared} header`);
  }
  if (declared !== null && !found.some(magic => magic.source === declared)) {
    throw new CisternError(
      'IMAGE_FORMAT_MISMATCH',
      `it is declared ${declared}, but its header is of ${found.map(magic => magic.name).join(' and ')}`,
    );
  }
  if (second) throw new CisternError('IMAGE_AMBIGUOUS', `its header is of ${found.map(magic => magic.name).join(' and ')}`);
  if (first.name === VMDK_TEXT)
    throw new CisternError('IMAGE_EXTENTS', 'it is only the descriptor of a VMDK, the data is in other files');
  if (first.encrypted) throw new CisternError('IMAGE_ENCRYPTED', `it is a ${first.name} container`);
  if (first.source === null) throw unknownFormat(first.name);
  return first.source;
}
