import { CisternError } from '../../../shared/errors.ts';
import { quote, requireInside, requireSize, requireSound, u64be } from './file.ts';
import type { ImageFile, Judge } from './file.ts';
import { checkL1, checkRefcounts } from './qcow2-tables.ts';

/** The fields of a qcow2 header that matter here (qemu's docs/interop/qcow2.txt); bytes and counts. */
export interface Qcow2Header {
  version: number;
  backingOffset: number;
  backingLength: number;
  clusterSize: number;
  virtualSize: number;
  cryptMethod: number;
  l1Entries: number;
  l1Offset: number;
  refcountOffset: number;
  refcountClusters: number;
  snapshots: number;
  incompatible: bigint;
  autoclear: bigint;
  refcountBits: number;
  length: number;
  extendedL2: boolean;
}

const INCOMPATIBLE = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n };
const KNOWN_INCOMPATIBLE = Object.values(INCOMPATIBLE).reduce((all, bit) => all | bit);
const AUTOCLEAR_RAW_DATA_FILE = 2n;
const EXTENSION = { end: 0, bitmaps: 0x23852875, encryption: 0x0537be77, dataFile: 0x44415441 };

/** Judges a qcow2, versions 2 and 3, by its header, its header extensions and the first MiB of its tables. */
export const judgeQcow2: Judge = async (image, maxVirtualSize) => {
  const header = await readHeader(image);
  checkFeatures(header);
  if (header.backingOffset !== 0)
    throw new CisternError('IMAGE_BACKING_FILE', `its backing file is ${await backingName(image, header)}`);
  requireSize(header.virtualSize, maxVirtualSize);
  // The first cluster may be cut off in a file that is cut; the tables below say so better than this read would.
  const first = await image.read(0, Math.min(header.clusterSize, image.size), 'the first cluster');
  const end = checkExtensions(header, first);
  await checkL1(image, header);
  await checkRefcounts(image, header);
  return { virtualSize: header.virtualSize, quiet: [end, header.clusterSize] };
};

async function readHeader(image: ImageFile): Promise<Qcow2Header> {
  const version = (await image.read(4, 4, 'the version')).readUInt32BE(0);
  if (version !== 2 && version !== 3) throw new CisternError('IMAGE_FEATURE_UNKNOWN', `qcow2 version ${version} is not known`);
  const v3 = version === 3;
  const b = await image.read(0, v3 ? 104 : 72, 'the header');
  const clusterBits = b.readUInt32BE(20);
  requireSound(clusterBits >= 9 && clusterBits <= 21, `cluster_bits is ${clusterBits}; qemu knows 9 to 21`);
  const refcountOrder = v3 ? b.readUInt32BE(96) : 4;
  requireSound(refcountOrder <= 6, `refcount_order is ${refcountOrder}; at most 6 is valid`);
  const length = v3 ? b.readUInt32BE(100) : 72;
  requireSound(
    length >= 72 + (v3 ? 32 : 0) && length % 8 === 0 && length <= 2 ** clusterBits,
    `header_length ${length} is not valid`,
  );
  const incompatible = v3 ? b.readBigUInt64BE(72) : 0n;
  const header: Qcow2Header = {
    version,
    backingOffset: u64be(b, 8),
    backingLength: b.readUInt32BE(16),
    clusterSize: 2 ** clusterBits,
    // qemu shows whole sectors only
    virtualSize: Math.floor(u64be(b, 24) / 512) * 512,
    cryptMethod: b.readUInt32BE(32),
    l1Entries: b.readUInt32BE(36),
    l1Offset: u64be(b, 40),
    refcountOffset: u64be(b, 48),
    refcountClusters: b.readUInt32BE(56),
    snapshots: b.readUInt32BE(60),
    incompatible,
    autoclear: v3 ? b.readBigUInt64BE(88) : 0n,
    refcountBits: 2 ** refcountOrder,
    length,
    extendedL2: (incompatible & INCOMPATIBLE.extendedL2) !== 0n,
  };
  await checkCompression(image, header);
  return header;
}

/** The compression byte lies behind the fixed part: present and 1 (zstd) exactly when the feature bit is set. */
async function checkCompression(image: ImageFile, header: Qcow2Header): Promise<void> {
  const type = header.length > 104 ? (await image.read(104, 1, 'the compression type')).readUInt8(0) : 0;
  const bit = (header.incompatible & INCOMPATIBLE.compression) !== 0n;
  if (type > 1) throw new CisternError('IMAGE_FEATURE_UNKNOWN', `compression type ${type} is not known`);
  requireSound(bit === (type !== 0), `compression type ${type} does not agree with the compression bit`);
}

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

/** Walks the header extensions; returns where they end. */
function checkExtensions(header: Qcow2Header, first: Buffer): number {
  let at = header.length;
  // each round moves at least 8 bytes on, and a cluster has at most 2 MiB
  while (at + 8 <= first.length) {
    const type = first.readUInt32BE(at);
    const length = first.readUInt32BE(at + 4);
    if (type === EXTENSION.end) return at + 8;
    requireSound(
      at + 8 + length <= header.clusterSize,
      `header extension 0x${type.toString(16)} of ${length} bytes runs out of the first cluster`,
    );
    requireInside(at + 8, length, first.length, `header extension 0x${type.toString(16)}`);
    if (type === EXTENSION.dataFile) {
      throw new CisternError(
        'IMAGE_DATA_FILE',
        `it names the data file ${quote(first.toString('utf8', at + 8, at + 8 + length))}`,
      );
    }
    if (type === EXTENSION.encryption) throw new CisternError('IMAGE_ENCRYPTED', 'it has a LUKS header');
    if (type === EXTENSION.bitmaps) {
      // qemu loads them at open, up to 1 GiB of memory for one bitmap's table
      const action = 'Remove them with qemu-img bitmap --remove, or copy the image: qemu-img convert -O qcow2 IN OUT.';
      throw new CisternError('IMAGE_FEATURE_UNKNOWN', 'it holds persistent dirty bitmaps', { action });
    }
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return at;
}
