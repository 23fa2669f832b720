import { CisternError } from '../../../shared/errors.ts';
import { quote, requireInside, requireSize, requireSound } from './file.ts';
import type { ImageFile, Judge } from './file.ts';
import { INCOMPATIBLE, readHeader, type Qcow2Header } from './qcow2-header.ts';
import { checkL1, checkRefcounts } from './qcow2-tables.ts';

const KNOWN_INCOMPATIBLE = Object.values(INCOMPATIBLE).reduce((all, bit) => all | bit);
const AUTOCLEAR_RAW_DATA_FILE = 2n;
const EXTENSION = { end: 0, bitmaps: 0x23852875, encryption: 0x0537be77, dataFile: 0x44415441 };

/** Judges a qcow2, versions 2 and 3, by its header, its header extensions, its refcounts and its L1 table. */
export const judgeQcow2: Judge = async (image, maxVirtualSize) => {
  const header = await readHeader(image);
  checkFeatures(header);
  if (header.backingOffset !== 0)
    throw new CisternError('IMAGE_BACKING_FILE', `its backing file is ${await backingName(image, header)}`);
  requireSize(header.virtualSize, maxVirtualSize);
  const end = await checkExtensions(image, header);
  await checkRefcounts(image, header);
  await checkL1(image, header);
  return { virtualSize: header.virtualSize, quiet: [end, header.clusterSize] };
};

function checkFeatures(header: Qcow2Header): void {
  const has = (bit: bigint) => (header.incompatible & bit) !== 0n;
  const unknown = header.incompatible & ~KNOWN_INCOMPATIBLE;
  if (unknown !== 0n)
    throw new CisternError('IMAGE_FEATURE_UNKNOWN', `incompatible feature bits 0x${unknown.toString(16)} are not known`);
  if (has(INCOMPATIBLE.dataFile)) throw new CisternError('IMAGE_DATA_FILE', 'its external data file bit is set');
  if ((header.autoclear & AUTOCLEAR_RAW_DATA_FILE) !== 0n)
    throw new CisternError('IMAGE_DATA_FILE', 'its raw external data bit is set');
  if (header.cryptMethod !== 0) throw new CisternError('IMAGE_ENCRYPTED', `its encryption method is ${header.cryptMethod}`);
  if (header.snapshots !== 0) throw new CisternError('IMAGE_SNAPSHOTS', `it holds ${header.snapshots} internal snapshots`);
  requireSound(!has(INCOMPATIBLE.dirty), 'its dirty bit is set: it was not closed cleanly');
  requireSound(!has(INCOMPATIBLE.corrupt), 'its corrupt bit is set');
  requireSound(!header.extendedL2 || header.clusterSize >= 2 ** 14, 'extended L2 entries need clusters of at least 16 KiB');
}

/** The backing file's name for the message; not finding it changes nothing about the verdict. */
async function backingName(image: ImageFile, header: Qcow2Header): Promise<string> {
  const { backingOffset, backingLength } = header;
  if (backingLength > 1023 || backingOffset + backingLength > image.size) return 'not readable';
  return quote((await image.read(backingOffset, backingLength, 'the backing file name')).toString('utf8'));
}

/** What header extensions take at most: names of features take a few hundred bytes, a LUKS header or a data file's name is refused. */
const EXTENSIONS = 4096;

/** Walks the header extensions; returns where they end. What lies behind an end that is not there would not have been looked at. */
async function checkExtensions(image: ImageFile, header: Qcow2Header): Promise<number> {
  const limit = Math.min(header.clusterSize, EXTENSIONS);
  const first = await image.read(0, Math.min(limit, image.size), 'the first cluster');
  // each round moves at least 8 bytes on
  for (let at = header.length; at + 8 <= first.length;) {
    const type = first.readUInt32BE(at);
    const length = first.readUInt32BE(at + 4);
    if (type === EXTENSION.end) return at + 8;
    if (type === EXTENSION.dataFile)
      throw new CisternError(
        'IMAGE_DATA_FILE',
        `it names the data file ${quote(first.toString('utf8', at + 8, at + 8 + length))}`,
      );
    if (type === EXTENSION.encryption) throw new CisternError('IMAGE_ENCRYPTED', 'it has a LUKS header');
    if (type === EXTENSION.bitmaps) {
      // qemu loads them at open, up to 1 GiB of memory for one bitmap's table
      const action = 'Remove them with qemu-img bitmap --remove, or copy the image: qemu-img convert -O qcow2 IN OUT.';
      throw new CisternError('IMAGE_FEATURE_UNKNOWN', 'it holds persistent dirty bitmaps', { action });
    }
    at += 8 + Math.ceil(length / 8) * 8;
    requireSound(at <= limit, `header extension 0x${type.toString(16)} of ${length} bytes runs out of the first cluster`);
  }
  requireInside({ size: image.size, whole: limit }, 0, limit, 'the first cluster');
  throw new CisternError('IMAGE_CORRUPT', 'its header extensions have no end');
}
