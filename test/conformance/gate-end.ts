/**
 * Ends of a transfer that the test holds up: they let `open` bytes pass and block their thread until the gate is opened or they are
 * woken. So a test can cancel, kill or wait in the middle of a transfer without guessing when that is.
 */
import type { Moved, RangeEnd, RangeReader, RangeWriter, Sink, Source } from '../../agent/transfer/ends.ts';

const CLOSED = 0;
const WOKEN = 2;

interface GateData {
  gate: Int32Array;
  /** Bytes that may pass before it blocks; shared by all threads. */
  open: number;
  passed: Int32Array;
}

export interface Gate {
  /** Resolves once a thread stands before the gate. */
  reached(): Promise<void>;
  open(): void;
}

const shared = (): Int32Array => new Int32Array(new SharedArrayBuffer(4));

/** A source of `size` bytes, each telling its offset, that blocks after about `open` bytes. */
export function gatedSource(size: number, open: number): Source & { gate: Gate } {
  const data: GateData = { gate: shared(), open, passed: shared() };
  return { name: 'gated source', size, ranges: () => Promise.resolve(gateEnd(data)), gate: gateOf(data) };
}

/** A sink that throws bytes away and blocks after about `open` of them. */
export function gatedSink(open: number): Sink & { gate: Gate; ended: string[] } {
  const data: GateData = { gate: shared(), open, passed: shared() };
  const ended: string[] = [];
  const end = (how: string) => (): Promise<void> => Promise.resolve(void ended.push(how));
  return {
    name: 'gated sink',
    ranges: () => Promise.resolve(gateEnd(data)),
    publish: end('publish'),
    abort: end('abort'),
    gate: gateOf(data),
    ended,
  };
}

export function fillPattern(offset: number, into: Uint8Array): void {
  for (let i = 0; i < into.length; i++) into[i] = ((offset + i) % 251) + 1;
}

export function openReader(data: unknown, moved: Moved): RangeReader {
  return {
    read: (offset, into) => {
      pass(data as GateData, into.length);
      fillPattern(offset, into);
      moved(into.length);
    },
    close: () => undefined,
  };
}

export function openWriter(data: unknown, moved: Moved): RangeWriter {
  return {
    write: (_offset, bytes) => {
      pass(data as GateData, bytes.length);
      moved(bytes.length);
    },
    close: () => undefined,
  };
}

function pass({ gate, open, passed }: GateData, bytes: number): void {
  if (Atomics.add(passed, 0, bytes) + bytes <= open) return;
  Atomics.notify(passed, 0);
  Atomics.wait(gate, 0, CLOSED);
  if (Atomics.load(gate, 0) === WOKEN) throw new Error('woken before the gate was opened');
}

function gateEnd(data: GateData): RangeEnd {
  const wake = (): void => set(data.gate, WOKEN);
  return { module: import.meta.url, data, wake, release: () => Promise.resolve() };
}

function gateOf({ gate, open, passed }: GateData): Gate {
  return {
    reached: async () => {
      for (let now = Atomics.load(passed, 0); now <= open; now = Atomics.load(passed, 0)) {
        const waiting = Atomics.waitAsync(passed, 0, now, 10_000);
        if (waiting.async && (await waiting.value) === 'timed-out') throw new Error('nobody came to the gate within 10 s');
      }
    },
    open: () => set(gate, 1),
  };
}

function set(gate: Int32Array, value: number): void {
  Atomics.compareExchange(gate, 0, CLOSED, value);
  Atomics.notify(gate, 0);
}
