import { CisternError } from '../../shared/errors.ts';
import type { ImageFormat } from '../../shared/model.ts';

export interface OverlaySpec {
  /** Bytes of the disk; rounded up to whole sectors of 512, as qemu-img does. */
  size: number;
  /** What it stands on; the name is relative to the overlay's folder. Null: an empty disk of its own. */
  backing: { name: string; format: ImageFormat } | null;
  /** Allocates in 32 parts of a cluster; on by default. */
  extendedL2?: boolean;
  /** 13 to 21, from 14 on with extended L2; 17 (128 KiB) by default. */
  clusterBits?: number;
}

/** The bytes of a file that are not zero, in the order in which they should be written: the header last. */
export interface OverlayImage {
  chunks: { offset: number; data: Buffer }[];
  /** Bytes of the whole file. */
  length: number;
}

/** The fixed header with the compression byte, padded to 8 (qemu's docs/interop/qcow2.txt). */
const HEADER_LENGTH = 112;
const EXTENSION = { end: 0, backingFormat: 0xe2792aca, featureNames: 0x6803f857 };
const MAX_L1_BYTES = 32 * 2 ** 20;
/** The features that qemu-img 7.2 knows by name, as it writes them: kind (0 incompatible, 1 compatible, 2 auto-clear), bit, name. */
const FEATURES: readonly (readonly [kind: number, bit: number, name: string])[] = [
  [0, 0, 'dirty bit'],
  [0, 1, 'corrupt bit'],
  [0, 2, 'external data file'],
  [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'],
  [1, 0, 'lazy refcounts'],
  [2, 0, 'bitmaps'],
  [2, 1, 'raw external data'],
];

/**
 * The bytes of an empty qcow2 (version 3) as `qemu-img create` writes them: header, refcount table, one refcount block, L1 table, each
 * from its own cluster on. Undefined where qemu-img would lay it out otherwise or refuse (more clusters than one refcount block
 * counts, an L1 table above qemu's limit, clusters so small that it leaves out a part of the header): ask qemu-img then.
 */
export function overlayImage(spec: OverlaySpec): OverlayImage | undefined {
  const { backing, extendedL2 = true, clusterBits = 17 } = spec;
  if (!Number.isSafeInteger(spec.size) || spec.size < 0)
    throw new CisternError('INTERNAL', `an overlay of ${spec.size} bytes was asked for`);
  if (backing && !/^[A-Za-z0-9._/-]{1,1023}$/.test(backing.name)) {
    throw new CisternError('INTERNAL', `an overlay on ${JSON.stringify(backing.name)} was asked for: not a name that we make`);
  }
  if (clusterBits < (extendedL2 ? 14 : 13) || clusterBits > 21) return undefined;
  const cluster = 2 ** clusterBits;
  const size = Math.ceil(spec.size / 512) * 512;
  const l1Entries = Math.ceil(size / ((cluster / (extendedL2 ? 16 : 8)) * cluster));
  const clusters = 3 + Math.ceil((l1Entries * 8) / cluster);
  // a refcount block has 16 bits for each cluster
  if (l1Entries * 8 > MAX_L1_BYTES || clusters > cluster / 2) return undefined;
  const header = headerBytes({ size, backing, extendedL2, clusterBits, l1Entries });
  const refcountTable = Buffer.alloc(8);
  refcountTable.writeBigUInt64BE(BigInt(2 * cluster));
  const refcounts = Buffer.alloc(clusters * 2);
  for (let i = 0; i < clusters; i++) refcounts.writeUInt16BE(1, i * 2);
  return {
    chunks: [
      { offset: 2 * cluster, data: refcounts },
      { offset: cluster, data: refcountTable },
      { offset: 0, data: header },
    ],
    length: 3 * cluster + l1Entries * 8,
  };
}

function headerBytes(of: Required<OverlaySpec> & { l1Entries: number }): Buffer {
  const cluster = 2 ** of.clusterBits;
  const fixed = Buffer.alloc(HEADER_LENGTH);
  const name = Buffer.from(of.backing?.name ?? '', 'latin1');
  const names = Buffer.alloc(FEATURES.length * 48);
  FEATURES.forEach(([kind, bit, text], i) => {
    names.writeUInt8(kind, i * 48);
    names.writeUInt8(bit, i * 48 + 1);
    names.write(text, i * 48 + 2, 'latin1');
  });
  const extensions = Buffer.concat([
    of.backing ? extension(EXTENSION.backingFormat, Buffer.from(of.backing.format, 'latin1')) : Buffer.alloc(0),
    extension(EXTENSION.featureNames, names),
    extension(EXTENSION.end, Buffer.alloc(0)),
  ]);
  fixed.write('QFI\xfb', 0, 'latin1');
  fixed.writeUInt32BE(3, 4); // version
  fixed.writeBigUInt64BE(BigInt(of.backing ? HEADER_LENGTH + extensions.length : 0), 8);
  fixed.writeUInt32BE(name.length, 16);
  fixed.writeUInt32BE(of.clusterBits, 20);
  fixed.writeBigUInt64BE(BigInt(of.size), 24);
  fixed.writeUInt32BE(of.l1Entries, 36);
  fixed.writeBigUInt64BE(BigInt(of.l1Entries === 0 ? 0 : 3 * cluster), 40);
  fixed.writeBigUInt64BE(BigInt(cluster), 48); // refcount table
  fixed.writeUInt32BE(1, 56); // its clusters
  fixed.writeBigUInt64BE(of.extendedL2 ? 16n : 0n, 72); // incompatible features
  fixed.writeUInt32BE(4, 96); // refcounts of 2^4 bits
  fixed.writeUInt32BE(HEADER_LENGTH, 100);
  return Buffer.concat([fixed, extensions, name]);
}

function extension(type: number, data: Buffer): Buffer {
  const bytes = Buffer.alloc(8 + Math.ceil(data.length / 8) * 8);
  bytes.writeUInt32BE(type, 0);
  bytes.writeUInt32BE(data.length, 4);
  data.copy(bytes, 8);
  return bytes;
}
