import { createHash, randomBytes } from 'node:crypto';
import { z } from 'zod';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** Lower-case only: ids name files, locks and rows, where two spellings of one id would be two things. */
export const Id = z
  .string()
  .regex(UUID, 'an id is a lower-case UUID')
  .meta({ format: 'uuid', description: 'A UUIDv7 made by the controller, in lower case.' });

/** Milliseconds in the newest id that this process has made or heard of. */
let newest = 0;

/**
 * A new UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits. Ids of one process sort as they were made, also where
 * its clock goes back: its time is then that of the id before, and one millisecond more.
 */
export function newId(now = Date.now()): string {
  newest = Math.max(now, newest + 1);
  return format(newest, randomBytes(10));
}

/** Ids made from now on sort after `id`. */
export function newIdsAfter(id: string): void {
  newest = Math.max(newest, millisOf(id));
}

/** When an id was made, in Unix milliseconds, by the clock of who made it. */
export const timeOf = (id: string): number => millisOf(id);

const millisOf = (id: string): number => parseInt(id.replaceAll('-', '').slice(0, 12), 16);

/**
 * The same UUIDv7 for the same `parent` and `name`, carrying the parent's time. The controller names tasks this way, so a
 * controller that follows a dead one sends the very id that was sent before and finds the task again.
 */
export function derivedId(parent: string, name: string): string {
  return format(millisOf(parent), createHash('sha256').update(`${parent}\n${name}`).digest().subarray(0, 10));
}

function format(millis: number, random: Buffer): string {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(millis, 0, 6);
  random.copy(bytes, 6);
  bytes[6] = 0x70 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
