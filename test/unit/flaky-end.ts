/** Ends of a transfer that fail as storages do: every n-th piece of work, with a code that is told. */
import { EndError } from '../../agent/transfer/end-error.ts';
import type { Moved, RangeEnd, RangeReader, RangeWriter, Sink, Source } from '../../agent/transfer/ends.ts';
import type { Pace } from '../../agent/transfer/pace.ts';
import type { PartDigest } from '../../agent/transfer/parts.ts';
import type { ErrorCode } from '../../shared/errors.ts';

interface FlakyData {
  /** Shared: [pieces of work so far, ends at work now, most ends at work at once since it was last asked]. */
  seen: Int32Array;
  /** Fails at each multiple of it; 0: never. */
  every: number;
  code: ErrorCode;
}

const end = (data: FlakyData): RangeEnd => ({ module: import.meta.url, data, release: () => Promise.resolve() });
const seen = (): Int32Array => new Int32Array(new SharedArrayBuffer(12));

/** `size` bytes, each telling its offset; `opened` counts how often a stream was begun. */
export function flakySource(
  size: number,
  every: number,
  code: ErrorCode,
  pace?: Pace,
): Source & { seen: Int32Array; opened: () => number } {
  const data: FlakyData = { seen: seen(), every, code };
  let opened = 0;
  const ranges = (): Promise<RangeEnd> => {
    opened++;
    return Promise.resolve({ ...end(data), ...(pace && { pace }) });
  };
  return { name: 'flaky source', size, ranges, seen: data.seen, opened: () => opened };
}

/** Keeps what arrives in shared memory. */
export function flakySink(
  size: number,
  every: number,
  code: ErrorCode,
): Sink & { bytes: Buffer; ended: string[]; arrivals: Map<number, PartDigest> } {
  const bytes = new SharedArrayBuffer(size);
  const data: FlakyData & { bytes: SharedArrayBuffer } = { seen: seen(), every, code, bytes };
  const ended: string[] = [];
  const arrivals = new Map<number, PartDigest>();
  const note = (how: string) => (): Promise<void> => Promise.resolve(void ended.push(how));
  return {
    name: 'flaky sink',
    ranges: () => Promise.resolve(end(data)),
    arrived: (part, digest) => void arrivals.set(part, digest),
    publish: note('publish'),
    abort: note('abort'),
    park: note('park'),
    bytes: Buffer.from(bytes),
    ended,
    arrivals,
  };
}

export function fillNumbers(offset: number, into: Uint8Array): void {
  for (let i = 0; i < into.length; i++) into[i] = ((offset + i) % 251) + 1;
}

function mayFail({ seen, every, code }: FlakyData, what: string): void {
  const count = Atomics.add(seen, 0, 1) + 1;
  if (every > 0 && count % every === 0) throw new EndError(code, `${what}: failure at ${count}`);
}

export function openReader(data: unknown, moved: Moved): RangeReader {
  return {
    read: (offset, into) => {
      mayFail(data as FlakyData, 'reading');
      fillNumbers(offset, into);
      moved(into.length);
    },
    close: () => undefined,
  };
}

export function openWriter(data: unknown, moved: Moved): RangeWriter {
  const { bytes } = data as { bytes: SharedArrayBuffer };
  return {
    write: (offset, from) => {
      mayFail(data as FlakyData, 'writing');
      new Uint8Array(bytes).set(from, offset);
      moved(from.length);
    },
    close: () => undefined,
  };
}
