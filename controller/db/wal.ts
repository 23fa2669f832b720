import { readFileSync, statSync } from 'node:fs';

/** Layout: sqlite.org/fileformat2.html#the_write_ahead_log. */
const HEADER = 32;
const FRAME_HEADER = 24;
const MAGIC = 0x377f0682;
/** Bytes. A log is written back into the database every 4 MiB; one beyond this is not read here. */
const LARGEST = 2 ** 30;

/**
 * Looks for damage in the middle of a write-ahead log. SQLite takes the first frame with a wrong checksum for the end of the log, and so
 * would silently forget the commits behind it. After a power cut only the frames of the one commit that was not on disk yet can be
 * torn: where commits follow on a wrong frame and were on disk before, bits have changed. Returns what is wrong, or undefined.
 */
export function damageInWal(file: string): string | undefined {
  const { size } = statSync(file);
  if (size <= HEADER || size > LARGEST) return undefined;
  const log = readFileSync(file);
  const magic = log.readUInt32BE(0);
  const page = log.readUInt32BE(8);
  const sum = summer(log, magic === MAGIC);
  const sound = magic >>> 1 === MAGIC >>> 1 && sum(0, 24, [0, 0]).join() === sumAt(log, 24);
  if (!sound) return log.subarray(0, HEADER).every(byte => byte === 0) ? undefined : 'the header of its write-ahead log is wrong';
  const salts = log.subarray(16, 24);
  let good: [number, number] | undefined = [log.readUInt32BE(24), log.readUInt32BE(28)];
  let wrong = 0;
  let commits = 0;
  for (let at = HEADER; at + FRAME_HEADER + page <= log.length; at += FRAME_HEADER + page) {
    // frames with other salts are of an earlier round, which this one has not overwritten yet
    const ours = log.subarray(at + 8, at + 16).equals(salts);
    if (good) {
      const next: [number, number] = sum(at + FRAME_HEADER, page, sum(at, 8, good));
      good = ours && next.join() === sumAt(log, at + 16) ? next : undefined;
      if (!good) wrong = at;
    }
    const isCommit = log.readUInt32BE(at + 4) !== 0;
    if (!good && ours && isCommit) commits++;
  }
  return commits > 1 ? `its write-ahead log is damaged at byte ${wrong}; ${commits} commits follow` : undefined;
}

const sumAt = (log: Buffer, at: number): string => [log.readUInt32BE(at), log.readUInt32BE(at + 4)].join();

/** The checksum of the log's format, over `length` bytes from `at`, begun with `start`. */
function summer(log: Buffer, little: boolean) {
  const view = new DataView(log.buffer, log.byteOffset, log.length);
  return (at: number, length: number, [s0, s1]: [number, number]): [number, number] => {
    for (let i = at; i < at + length; i += 8) {
      s0 = (s0 + view.getUint32(i, little) + s1) >>> 0;
      s1 = (s1 + view.getUint32(i + 4, little) + s0) >>> 0;
    }
    return [s0, s1];
  };
}
