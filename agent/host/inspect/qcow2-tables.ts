import { requireInside, requireSound } from './file.ts';
import type { Bounds, ImageFile } from './file.ts';
import type { Qcow2Header } from './qcow2-header.ts';
import { readTable, requireDistinct, type TablePart } from './tables.ts';

/** qemu's own limits on what it loads at open (block/qcow2.h): L1 table 32 MiB, refcount table 8 MiB. */
const MAX_L1 = 32 * 2 ** 20;
const MAX_REFCOUNT_TABLE = 8 * 2 ** 20;
/** How much of the refcount table is looked at: the counts of 32 GiB of file with the smallest clusters, of 512 TiB with the usual ones. */
const REFCOUNT_PART = 2 ** 21;
/** Twice the disk and this much is more than the tables of any honest writer make of it, leaked clusters included. */
const SLACK = 2 ** 30;

/**
 * The refcount table and its blocks lie inside the file. The last cluster that is counted as used must, too: qemu reads zeros behind
 * a file's end, so a cut image would become a disk with holes in it and nobody would know.
 */
export async function checkRefcounts(image: ImageFile, header: Qcow2Header): Promise<void> {
  const { clusterSize, refcountOffset, refcountClusters, refcountBits } = header;
  const bounds = { size: image.size, whole: 2 * header.virtualSize + SLACK };
  const length = refcountClusters * clusterSize;
  requireSound(
    length > 0 && length <= MAX_REFCOUNT_TABLE,
    `the refcount table has ${length} bytes, valid are 1 to ${MAX_REFCOUNT_TABLE}`,
  );
  checkPlace(refcountOffset, clusterSize, 'the refcount table');
  requireInside(bounds, refcountOffset, length, 'the refcount table');
  const table = await image.read(refcountOffset, Math.min(length, REFCOUNT_PART), 'the refcount table');
  const { places, last } = checkEntries(bounds, header, { first: 0, bytes: table }, 0xff00_0000, 'refcount block');
  requireDistinct(places, 'the refcount block at byte');
  const at = places.at(-1);
  if (at === undefined) return;
  const block = await image.read(at, Math.min(clusterSize, image.size - at), 'the last refcount block');
  let used = block.length - 1;
  while (used >= 0 && block[used] === 0) used--;
  if (used < 0) return;
  const cluster = last * ((clusterSize * 8) / refcountBits) + Math.floor((used * 8) / refcountBits);
  // A file may end inside of its last cluster, so only the first byte is asked for.
  requireInside(bounds, cluster * clusterSize, 1, 'the last used cluster');
}

/** The L1 table: large enough for the disk, inside the file, its entries too, and no L2 table used twice. Comes after the refcounts: they tell what was cut from what lies. */
export async function checkL1(image: ImageFile, header: Qcow2Header): Promise<void> {
  const { clusterSize, l1Entries, l1Offset } = header;
  const bounds = { size: image.size, whole: image.size };
  const l2Reach = (clusterSize / (header.extendedL2 ? 16 : 8)) * clusterSize;
  const needed = Math.ceil(header.virtualSize / l2Reach);
  requireSound(
    l1Entries >= needed,
    `the L1 table has ${l1Entries} entries, a disk of ${header.virtualSize} bytes needs ${needed}`,
  );
  requireSound(l1Entries * 8 <= MAX_L1, `the L1 table has ${l1Entries} entries, qemu takes at most ${MAX_L1 / 8}`);
  if (l1Entries === 0) return;
  checkPlace(l1Offset, clusterSize, 'the L1 table');
  requireInside(bounds, l1Offset, l1Entries * 8, 'the L1 table');
  const parts = await readTable(image, l1Offset, l1Entries * 8, 8, 'the L1 table');
  // Bit 63 is set on tables that are this image's own; bits 0-8 and 56-62 must be zero.
  const places = parts.flatMap(part => checkEntries(bounds, header, part, 0x7f00_0000, 'L2 table').places);
  requireDistinct(places, 'the L2 table at byte');
}

function checkPlace(offset: number, clusterSize: number, what: string): void {
  requireSound(offset >= clusterSize && offset % clusterSize === 0, `${what} cannot lie at byte ${offset}`);
}

/** Checks each 64-bit entry: cluster-aligned, inside the file, none of the `reserved` bits of its upper half. Returns where those that are set lead, and the index of the last one. */
function checkEntries(bounds: Bounds, header: Qcow2Header, part: TablePart, reserved: number, what: string) {
  const table = part.bytes;
  const places: number[] = [];
  let last = -1;
  for (let at = 0; at + 8 <= table.length; at += 8) {
    const high = table.readUInt32BE(at);
    const low = table.readUInt32BE(at + 4);
    if (high === 0 && low === 0) continue;
    const index = part.first + at / 8;
    const offset = (high & 0x00ff_ffff) * 2 ** 32 + low;
    requireSound((high & reserved) === 0, `entry ${index} has reserved bits set: no ${what}`);
    if (offset === 0) continue;
    const name = `${what} ${index}`;
    checkPlace(offset, header.clusterSize, name);
    requireInside(bounds, offset, 1, name);
    places.push(offset);
    last = index;
  }
  return { places, last };
}
