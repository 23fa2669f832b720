import { CisternError } from '../../../shared/errors.ts';
import { requireSound, u64be } from './file.ts';
import type { ImageFile } from './file.ts';

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

/** Bits of features without which an image cannot be read. */
export const INCOMPATIBLE = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n };

/** Reads the header of versions 2 and 3; only what it says of itself is judged here. */
export async function readHeader(image: ImageFile): Promise<Qcow2Header> {
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
