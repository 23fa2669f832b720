/** Damage to files as disks, cables and hands do it: the same seed does the same damage. */
import { createHash } from 'node:crypto';

/** Numbers from 0 up to below `below`, in an order that `seed` decides. */
export function picker(seed: number | string): (below: number) => number {
  let state = createHash('sha256').update(String(seed)).digest();
  return below => {
    state = createHash('sha256').update(state).digest();
    return Number(state.readBigUInt64BE() % BigInt(below));
  };
}

/** A copy of `bytes` with one bit turned over. */
export function flipBit(bytes: Buffer, at: number, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 1 << bit;
  return copy;
}

/** What can happen to a file, by name; each leaves something else than it was given. */
const KINDS: Record<string, (bytes: Buffer, pick: (below: number) => number) => Buffer> = {
  'a flipped bit': (bytes, pick) => flipBit(bytes, pick(bytes.length), pick(8)),
  'a cut end': (bytes, pick) => bytes.subarray(0, pick(bytes.length)),
  'a hole': (bytes, pick) => {
    const at = pick(bytes.length);
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + pick(200))]);
  },
  'a tail of zeros': (bytes, pick) => {
    const at = pick(bytes.length);
    return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(bytes.length - at + pick(5000))]);
  },
  garbage: (bytes, pick) => {
    const at = pick(bytes.length);
    const noise = Buffer.from(Array.from({ length: 1 + pick(300) }, () => pick(256)));
    return Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)]);
  },
  'a sector of zeros': (bytes, pick) => {
    const copy = Buffer.from(bytes);
    const at = pick(bytes.length);
    return copy.fill(0, at, Math.min(at + 512, bytes.length));
  },
};

/** One kind of damage, in turn, at a place that the seed decides. */
export function damage(bytes: Buffer, seed: number): { kind: string; bytes: Buffer } {
  const names = Object.keys(KINDS);
  const kind = names[seed % names.length]!;
  return { kind, bytes: KINDS[kind]!(bytes, picker(seed)) };
}
