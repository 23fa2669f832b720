/** The journal beside a partial object: which of its parts have arrived, so that another attempt need not bring them again. */
import { constants, type Stats } from 'node:fs';
import { lstat, open, rm } from 'node:fs/promises';
import { digestOf, partRange, type PartDigest } from './parts.ts';

/** Which object a journal is of: another size, another cut or another tag, and what lies there is of no use. */
export interface JournalHead {
  size: number;
  partSize: number;
  /** What tells one object from another, such as the digest of the image; '' where each part is compared with what is to be sent anyway. */
  tag: string;
}

/** No journal is larger: 64 MiB tell some million parts. */
export const JOURNAL_LIMIT = 64 * 2 ** 20;

export const headLine = ({ size, partSize, tag }: JournalHead): string => `${size} ${partSize} ${tag}\n`;
export const partLine = (part: number, digest: PartDigest): string => `${part} ${digest}\n`;

/** The parts that a journal tells. None where it is of another object; a line that was cut short counts for nothing. */
export function parseJournal(text: string, head: JournalHead): Map<number, PartDigest> {
  const kept = new Map<number, PartDigest>();
  if (!text.startsWith(headLine(head))) return kept;
  const count = Math.ceil(head.size / head.partSize);
  for (const [, part, digest] of text.matchAll(/^(\d{1,7}) ([0-9a-f]{64}|zero)\n/gm))
    if (Number(part) < count) kept.set(Number(part), digest!);
  return kept;
}

export interface PartJournal {
  kept: ReadonlyMap<number, PartDigest>;
  arrived(part: number, digest: PartDigest): void;
  /** Whether it tells nothing yet. */
  empty(): boolean;
  /** Waits until what was told is written. */
  settled(): Promise<void>;
}

const LINK_FREE = constants.O_NOFOLLOW | constants.O_NONBLOCK;

/**
 * Takes up the journal at `path` of the local file `partial`, each part read again and compared; or undefined where there is nothing to go
 * on from.
 */
export async function takeUpJournal(path: string, partial: string, head: JournalHead): Promise<PartJournal | undefined> {
  const there = await lstat(partial).catch(absent);
  if (!there?.isFile() || there.size !== head.size) return undefined;
  const told = parseJournal(await readJournal(path), head);
  if (told.size === 0) return undefined;
  const kept = await stillThere(partial, told, head);
  return writing(path, kept);
}

/** Begins a journal; what lies at `path` goes. */
export async function beginJournal(path: string, head: JournalHead): Promise<PartJournal> {
  await rm(path, { force: true });
  await using file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | LINK_FREE, 0o600);
  await file.write(headLine(head));
  return writing(path, new Map());
}

function writing(path: string, kept: ReadonlyMap<number, PartDigest>): PartJournal {
  let empty = kept.size === 0;
  let last: Promise<void> = Promise.resolve();
  const add = async (line: string): Promise<void> => {
    await using file = await open(path, constants.O_WRONLY | constants.O_APPEND | LINK_FREE);
    await file.write(line);
  };
  return {
    kept,
    empty: () => empty,
    arrived: (part, digest) => {
      empty = false;
      // a line that cannot be written costs the next attempt a part, no more
      last = last.then(() => add(partLine(part, digest)).catch(() => undefined));
    },
    settled: () => last,
  };
}

async function readJournal(path: string): Promise<string> {
  try {
    await using file = await open(path, constants.O_RDONLY | LINK_FREE);
    const stat: Stats = await file.stat();
    if (!stat.isFile() || stat.size > JOURNAL_LIMIT) return '';
    return (await file.read(Buffer.alloc(stat.size), 0, stat.size, 0)).buffer.toString('latin1');
  } catch (error) {
    return absent(error as NodeJS.ErrnoException) ?? '';
  }
}

/** Those of the parts that are in the file as the journal says: a power cut, or somebody, may have changed it since. */
async function stillThere(partial: string, told: Map<number, PartDigest>, head: JournalHead): Promise<Map<number, PartDigest>> {
  const kept = new Map<number, PartDigest>();
  await using file = await open(partial, constants.O_RDONLY | LINK_FREE);
  const buffer = Buffer.allocUnsafeSlow(Math.min(head.partSize, head.size));
  for (const [part, digest] of told) {
    const { offset, length } = partRange(part, head.size, head.partSize);
    const { bytesRead } = await file.read(buffer, 0, length, offset);
    if (bytesRead === length && digestOf(buffer.subarray(0, length)) === digest) kept.set(part, digest);
  }
  return kept;
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
