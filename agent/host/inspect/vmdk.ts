import { CisternError } from '../../../shared/errors.ts';
import { isPowerOfTwo, requireInside, requireSize, requireSound, u64le } from './file.ts';
import type { Bounds, ImageFile, Judge } from './file.ts';
import { readTable, requireDistinct } from './tables.ts';
import { checkDescriptor, checkNoParent } from './vmdk-descriptor.ts';

const SECTOR = 512;
const FLAG = { newlines: 1, redundantDirectory: 2 };
/** "The grain directory's place stands in the footer." */
const AT_END = 2 ** 64;
const FOOTER_MARKER = 3;
/** The largest grain and grain directory that qemu opens (block/vmdk.c). */
const MAX_GRAIN = 0x20_0000;
const MAX_DIRECTORY = 32 * 2 ** 20;
const MAX_DESCRIPTOR = 2 ** 20;
/** Twice the disk and this much is more than directories, tables and markers make of it. */
const SLACK = 2 ** 26;
/** How many grain tables are looked at from either end of the disk, 2 KiB each: all of a disk of 16 GiB, where grains have 64 KiB. */
const TABLES_READ = 256;

/** A sparse extent's header ("Virtual Disk Format 5.0" by VMware); sizes and places in sectors. */
interface SparseHeader {
  flags: number;
  capacity: number;
  grain: number;
  descriptorAt: number;
  descriptorSectors: number;
  tableEntries: number;
  redundantAt: number;
  directoryAt: number;
  dataAt: number;
}

/** Judges a VMDK in one file, monolithicSparse or streamOptimized, by header, footer, descriptor and grain directory. */
export const judgeVmdk: Judge = async (image, maxVirtualSize) => {
  const first = readSparse(await image.read(0, SECTOR, 'the header'));
  if (first.capacity === 0 || first.descriptorAt === 0 || first.descriptorSectors === 0) {
    throw new CisternError(
      'IMAGE_EXTENTS',
      'it has no disk or no descriptor of its own: it is a part of a VMDK of several files',
    );
  }
  const { descriptorAt, descriptorSectors } = first;
  requireSound(descriptorSectors * SECTOR <= MAX_DESCRIPTOR, `the descriptor has ${descriptorSectors} sectors`);
  requireSize(first.capacity * SECTOR, maxVirtualSize);
  const bounds = { size: image.size, whole: 2 * first.capacity * SECTOR + SLACK };
  requireInside(bounds, descriptorAt * SECTOR, descriptorSectors * SECTOR, 'the descriptor');
  const text = await image.read(descriptorAt * SECTOR, descriptorSectors * SECTOR, 'the descriptor');
  checkDescriptor(text.toString('latin1'));
  // qemu looks for a parent in the 20 sectors behind the header, wherever the header says that the descriptor is.
  const near = await image.read(SECTOR, Math.min(20 * SECTOR, image.size - SECTOR), 'the sectors behind the header');
  checkNoParent(near.toString('latin1').split('\0', 1)[0] ?? '');
  const header = first.directoryAt === AT_END ? await readFooter(image, first) : first;
  await checkDirectories(image, header, bounds);
  return { virtualSize: header.capacity * SECTOR, quiet: [79, SECTOR] };
};

function readSparse(b: Buffer): SparseHeader {
  const version = b.readUInt32LE(4);
  const compression = b.readUInt16LE(77);
  if (version < 1 || version > 3) throw new CisternError('IMAGE_FEATURE_UNKNOWN', `VMDK version ${version} is not known`);
  if (compression > 1) throw new CisternError('IMAGE_FEATURE_UNKNOWN', `compression ${compression} is not known`);
  const header: SparseHeader = {
    flags: b.readUInt32LE(8),
    capacity: u64le(b, 12),
    grain: u64le(b, 20),
    descriptorAt: u64le(b, 28),
    descriptorSectors: u64le(b, 36),
    tableEntries: b.readUInt32LE(44),
    redundantAt: u64le(b, 48),
    directoryAt: u64le(b, 56),
    dataAt: u64le(b, 64),
  };
  const newlines = b.toString('latin1', 73, 77);
  requireSound((header.flags & FLAG.newlines) === 0 || newlines === '\n \r\n', 'its line ends were changed: it was sent as text');
  requireSound(isPowerOfTwo(header.grain) && header.grain <= MAX_GRAIN, `a grain cannot have ${header.grain} sectors`);
  requireSound(
    header.tableEntries >= 1 && header.tableEntries <= 512,
    `a grain table cannot have ${header.tableEntries} entries`,
  );
  return header;
}

/** The second header of a stream-optimized VMDK: a marker, the header, the end-of-stream marker are the file's last three sectors. */
async function readFooter(image: ImageFile, first: SparseHeader): Promise<SparseHeader> {
  const cut = 'the footer is not at the end of the file';
  if (image.size % SECTOR !== 0 || image.size < 4 * SECTOR) throw new CisternError('IMAGE_TRUNCATED', cut);
  const b = await image.read(image.size - 3 * SECTOR, 3 * SECTOR, 'the footer');
  const isFooter =
    b.readUInt32LE(8) === 0 && b.readUInt32LE(12) === FOOTER_MARKER && b.toString('latin1', SECTOR, SECTOR + 4) === 'KDMV';
  const isEnd = b.subarray(2 * SECTOR, 2 * SECTOR + 16).every(byte => byte === 0);
  if (!isFooter || !isEnd) throw new CisternError('IMAGE_TRUNCATED', cut);
  const footer = readSparse(b.subarray(SECTOR, 2 * SECTOR));
  requireSound(footer.capacity === first.capacity, `header and footer say ${first.capacity} and ${footer.capacity} sectors`);
  requireSound(footer.directoryAt !== AT_END, 'the footer does not say where the grain directory is');
  return footer;
}

/** The grain directories lie inside the file, and so do the tables and the grains of the one that is read; no table is there twice. */
async function checkDirectories(image: ImageFile, header: SparseHeader, bounds: Bounds): Promise<void> {
  const entries = Math.ceil(header.capacity / (header.grain * header.tableEntries));
  requireSound(entries <= MAX_DIRECTORY, `the grain directory has ${entries} entries`);
  requireInside(bounds, header.dataAt * SECTOR, 0, 'the first grain');
  const directories = [header.directoryAt];
  // qemu reads only the entries of the first one, but loads both
  if ((header.flags & FLAG.redundantDirectory) !== 0) directories.push(header.redundantAt);
  for (const at of directories) {
    requireSound(at > 0, 'a grain directory cannot lie on the header');
    requireInside(bounds, at * SECTOR, entries * 4, 'a grain directory');
  }
  const parts = await readTable(image, header.directoryAt * SECTOR, entries * 4, 4, 'the grain directory');
  const tables = parts.flatMap(({ bytes }) => sectorsOf(bytes));
  for (const table of tables) requireInside(bounds, table * SECTOR, header.tableEntries * 4, 'a grain table');
  requireDistinct(tables, 'the grain table at sector');
  for (const table of new Set([...tables.slice(0, TABLES_READ), ...tables.slice(-TABLES_READ)])) {
    const grains = sectorsOf(await image.read(table * SECTOR, header.tableEntries * 4, 'a grain table'));
    grains.forEach(grain => requireInside(bounds, grain * SECTOR, 1, 'a grain'));
  }
}

/** The entries of a directory or table that are set: 0 is "none", and 1 among grains is "zeros". */
function sectorsOf(table: Buffer): number[] {
  const sectors: number[] = [];
  for (let at = 0; at + 4 <= table.length; at += 4) {
    const sector = table.readUInt32LE(at);
    if (sector > 1) sectors.push(sector);
  }
  return sectors;
}
