import { requireInside, requireSound, TABLE_LIMIT } from './file.ts';
import type { ImageFile } from './file.ts';
import type { Qcow2Header } from './qcow2-header.ts';

/** qemu's own limits on what it loads at open (block/qcow2.h): L1 table 32 MiB, refcount table 8 MiB. */
const MAX_L1 = 32 * 2 ** 20;
const MAX_REFCOUNT_TABLE = 8 * 2 ** 20;

/** The L1 table: large enough for the disk, inside the file, its entries too, and no L2 table used twice. */
export async function checkL1(image: ImageFile, header: Qcow2Header): Promise<void> {
  const { clusterSize, l1Entries, l1Offset } = header;
  const l2Reach = (clusterSize / (header.extendedL2 ? 16 : 8)) * clusterSize;
  const needed = Math.ceil(header.virtualSize / l2Reach);
  requireSound(
    l1Entries >= needed,
    `the L1 table has ${l1Entries} entries, a disk of ${header.virtualSize} bytes needs ${needed}`,
  );
  requireSound(l1Entries * 8 <= MAX_L1, `the L1 table has ${l1Entries} entries, qemu takes at most ${MAX_L1 / 8}`);
  if (l1Entries === 0) return;
  checkPlace(l1Offset, clusterSize, 'the L1 table');
  requireInside(l1Offset, l1Entries * 8, image.size, 'the L1 table');
  const table = await image.read(l1Offset, Math.min(l1Entries * 8, TABLE_LIMIT), 'the L1 table');
  // Bit 63 is set on tables that are this image's own; bits 0-8 and 56-62 must be zero.
  checkEntries(image, header, table, 0x7f00_0000, 'L2 table');
}

/**
 * The refcount table and its blocks lie inside the file. The last cluster that is counted as used must, too: qemu reads zeros behind
 * a file's end, so a cut image would become a disk with holes in it and nobody would know.
 */
export async function checkRefcounts(image: ImageFile, header: Qcow2Header): Promise<void> {
  const { clusterSize, refcountOffset, refcountClusters, refcountBits } = header;
  const length = refcountClusters * clusterSize;
  requireSound(
    length > 0 && length <= MAX_REFCOUNT_TABLE,
    `the refcount table has ${length} bytes, valid are 1 to ${MAX_REFCOUNT_TABLE}`,
  );
  checkPlace(refcountOffset, clusterSize, 'the refcount table');
  requireInside(refcountOffset, length, image.size, 'the refcount table');
  const table = await image.read(refcountOffset, Math.min(length, TABLE_LIMIT), 'the refcount table');
  const last = checkEntries(image, header, table, 0xff00_0000, 'refcount block');
  if (!last) return;
  const block = await image.read(last.offset, Math.min(clusterSize, image.size - last.offset), 'the last refcount block');
  const used = block.findLastIndex(byte => byte !== 0);
  if (used < 0) return;
  const cluster = last.index * ((clusterSize * 8) / refcountBits) + Math.floor((used * 8) / refcountBits);
  // A file may end inside of its last cluster, so only the first byte is asked for.
  requireInside(cluster * clusterSize, 1, image.size, 'the last used cluster');
}

function checkPlace(offset: number, clusterSize: number, what: string): void {
  requireSound(offset >= clusterSize && offset % clusterSize === 0, `${what} cannot lie at byte ${offset}`);
}

/** Checks each 64-bit entry: cluster-aligned, inside the file, no reserved bit, no cluster twice. Returns the last one that is set. */
function checkEntries(image: ImageFile, header: Qcow2Header, table: Buffer, reserved: number, what: string) {
  const seen = new Set<number>();
  let last: { index: number; offset: number } | undefined;
  for (let at = 0; at + 8 <= table.length; at += 8) {
    const high = table.readUInt32BE(at);
    const low = table.readUInt32BE(at + 4);
    if (high === 0 && low === 0) continue;
    const offset = (high & 0x00ff_ffff) * 2 ** 32 + low;
    requireSound((high & reserved) === 0, `entry ${at / 8} has reserved bits set: no ${what}`);
    if (offset === 0) continue;
    checkPlace(offset, header.clusterSize, `${what} ${at / 8}`);
    requireInside(offset, 1, image.size, `${what} ${at / 8}`);
    requireSound(!seen.has(offset), `${what} ${at / 8} at byte ${offset} is used twice`);
    seen.add(offset);
    last = { index: at / 8, offset };
  }
  return last;
}
