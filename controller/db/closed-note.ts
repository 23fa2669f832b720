import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, readSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { z } from 'zod';

/** `cistern.db.closed`: what the database was when the last controller closed it. Gone while one has it open. */
const Note = z.object({ size: z.number(), mtime: z.string(), sha256: z.string() });

const noteOf = (file: string): string => `${file}.closed`;
const STEP = 4 * 2 ** 20;

/** Written after the database was closed. SQLite has no checksums in its pages: this one finds bits that change while nobody looks. */
export function noteClosed(file: string): void {
  const next = `${noteOf(file)}.new`;
  writeFileSync(next, JSON.stringify({ ...statOf(file), sha256: digestOf(file) }), { mode: 0o600 });
  renameSync(next, noteOf(file));
}

/** Whether a controller has ever closed it, and none has opened it since. */
export const wasClosed = (file: string): boolean => existsSync(noteOf(file));

/** To be called before the database is written to. */
export const forgetClosed = (file: string): void => rmSync(noteOf(file), { force: true });

/**
 * How the database is, compared with that note: `same`; `changed` bytes under an unchanged time, which no program does; or `unknown`: no
 * note (the last controller died), or another file was put there, such as a backup.
 */
export function compareClosed(file: string): 'same' | 'changed' | 'unknown' {
  let note: z.infer<typeof Note>;
  try {
    note = Note.parse(JSON.parse(readFileSync(noteOf(file), 'utf8')));
  } catch {
    return 'unknown';
  }
  const { size, mtime } = statOf(file);
  if (note.mtime !== mtime) return 'unknown';
  return note.size === size && note.sha256 === digestOf(file) ? 'same' : 'changed';
}

function statOf(file: string): { size: number; mtime: string } {
  const { size, mtimeNs } = statSync(file, { bigint: true });
  return { size: Number(size), mtime: String(mtimeNs) };
}

function digestOf(file: string): string {
  const sum = createHash('sha256');
  const fd = openSync(file, 'r');
  try {
    const buffer = Buffer.allocUnsafe(STEP);
    for (let n = readSync(fd, buffer); n > 0; n = readSync(fd, buffer)) sum.update(buffer.subarray(0, n));
  } finally {
    closeSync(fd);
  }
  return sum.digest('hex');
}
