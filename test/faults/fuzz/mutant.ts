import { boundedImage, type ImageFile } from '../../../agent/host/inspect/file.ts';
import { crc32c } from '../../../agent/host/inspect/crc32c.ts';
import { pick, type Random } from './random.ts';
import type { Seed } from './seeds.ts';

/** An honest image with some bytes replaced, and another length. Only what differs is kept: no copy, no file. */
export interface Mutant {
  seed: Seed;
  edits: { at: number; bytes: Buffer }[];
  size: number;
  /** What was done, for finding those that are alike. */
  touched: string[];
}

/** Bytes of a mutant, to be read only; zeros where its file is longer than the honest one. */
export function readMutant({ seed, edits }: Mutant, offset: number, length: number): Buffer {
  const here = edits.filter(({ at, bytes }) => at < offset + length && at + bytes.length > offset);
  if (here.length === 0 && offset + length <= seed.bytes.length) return seed.bytes.subarray(offset, offset + length);
  const bytes = Buffer.alloc(length);
  seed.bytes.copy(bytes, 0, offset, offset + length);
  for (const edit of here) edit.bytes.copy(bytes, Math.max(0, edit.at - offset), Math.max(0, offset - edit.at));
  return bytes;
}

export const imageOf = (mutant: Mutant): ImageFile =>
  boundedImage(mutant.size, (offset, length) => Promise.resolve(readMutant(mutant, offset, length)));

/** Integers at which parsers have gone wrong: limits of widths, bits, small counts, aligned places inside and around the file. */
function interesting(random: Random, size: number): bigint {
  const near = BigInt(random(5)) - 2n;
  switch (random(6)) {
    case 0:
      return BigInt(random(10));
    case 1:
      return (1n << BigInt(random(64))) + near;
    case 2:
      return BigInt(size) + near * 512n;
    case 3:
      return BigInt(random(Math.ceil(size / 512))) * 512n;
    case 4:
      return BigInt(random(64)) * 0x1_0000n + near;
    default:
      return (BigInt(random(2 ** 32)) << 32n) | BigInt(random(2 ** 32));
  }
}

/** Bytes that mean something to one reader or another. */
const WORDS = [
  'QFI\xfb\0\0\0\x03',
  'KDMV\x01\0\0\0',
  '\x7f\x10\xda\xbe',
  'vhdxfile',
  'conectix',
  'EFI PART',
  '\x55\xaa',
  '\x01CD001',
  '# Disk DescriptorFile\nversion=1\n',
  'parentCID=12345678\n',
  'parentFileNameHint="/etc/passwd"\n',
  'createType="monolithicFlat"\n',
  'RW 8 FLAT "/etc/passwd" 0\n',
  '\x44\x41\x54\x41\0\0\0\x0b/etc/passwd\0\0\0\0\0',
  '\xe2\x79\x2a\xca\0\0\0\x03raw\0\0\0\0\0',
  '\x05\x37\xbe\x77\0\0\0\x10'.padEnd(24, '\0'),
  '/etc/passwd',
  'json:{}',
].map(word => Buffer.from(word, 'latin1'));

type Step = (mutant: Mutant, random: Random, seeds: readonly Seed[]) => void;

const place = (mutant: Mutant, random: Random): { at: number; name: string } => {
  const { name, from, to } = pick(random, mutant.seed.regions);
  return { at: from + random(to - from), name };
};

const replace = (mutant: Mutant, at: number, bytes: Buffer, touched: string): void => {
  mutant.edits.push({ at, bytes });
  mutant.touched.push(touched);
};

const flip: Step = (mutant, random) => {
  const { at } = place(mutant, random);
  const bytes = Buffer.from(readMutant(mutant, at, 1));
  bytes.writeUInt8(bytes.readUInt8(0) ^ (1 << random(8)));
  replace(mutant, at, bytes, `bit ${at}`);
};

const integer: Step = (mutant, random) => {
  const { seed } = mutant;
  const known = random(4) > 0;
  const loose = place(mutant, random).at;
  const [at, length] = known ? pick(random, seed.fields) : ([loose - (loose % 4), pick(random, [2, 4, 8])] as const);
  const old = readMutant(mutant, at, 8);
  const now =
    random(3) > 0
      ? interesting(random, mutant.size)
      : (seed.bigEndian ? old.readBigUInt64BE() >> BigInt(64 - length * 8) : old.readBigUInt64LE()) + BigInt(random(9) - 4);
  const bytes = Buffer.alloc(8);
  if (seed.bigEndian) bytes.writeBigUInt64BE(BigInt.asUintN(64, now << BigInt(64 - length * 8)));
  else bytes.writeBigUInt64LE(BigInt.asUintN(64, now));
  replace(mutant, at, bytes.subarray(0, length), `integer ${at}`);
};

const splice: Step = (mutant, random, seeds) => {
  const other = random(2) === 0 ? mutant.seed : pick(random, seeds);
  const from = pick(random, other.regions);
  const { at, name } = place(mutant, random);
  const start = from.from + random(from.to - from.from);
  const bytes = Buffer.from(other.bytes.subarray(start, start + 1 + random(512)));
  replace(mutant, at, bytes, `splice ${other.base} ${from.name} into ${name}`);
};

const shift: Step = (mutant, random) => {
  const { at, name } = place(mutant, random);
  const by = 1 + random(64);
  const rest = readMutant(mutant, at, 4096);
  replace(mutant, at, random(2) === 0 ? rest.subarray(by) : Buffer.concat([rest.subarray(0, by), rest]), `shift ${name}`);
};

const word: Step = (mutant, random) => {
  const index = random(WORDS.length);
  const { at, name } =
    random(3) > 0 ? place(mutant, random) : { at: pick(random, [0, 0x40, 510, 512, 4096, 0x8000]), name: 'a fixed place' };
  replace(mutant, at, WORDS[index] ?? Buffer.alloc(0), `word ${index} ${name}`);
};

const resize: Step = (mutant, random) => {
  const { length } = mutant.seed.bytes;
  const { from, to } = pick(random, mutant.seed.regions);
  mutant.size = pick(random, [
    random(length),
    length - random(1024),
    from + random(to - from),
    length + random(2 ** 20),
    random(64) * 65536,
  ]);
  mutant.touched.push('size');
};

/** What single changes hardly ever make whole: another file, named so that qemu would open it. */
const lie: Step = (mutant, random) => {
  const { bytes, format } = mutant.seed;
  const name = Buffer.from('/etc/passwd');
  if (format === 'qcow2') {
    const fields = Buffer.alloc(12);
    fields.writeUInt32BE(0x300, 4);
    fields.writeUInt32BE(1 + random(name.length), 8);
    mutant.edits.push({ at: 8, bytes: fields }, { at: 0x300, bytes: name });
  } else if (format === 'vmdk') {
    const hint = Buffer.from(`parentFileNameHint="/etc/passwd"\n`);
    mutant.edits.push({ at: bytes.indexOf('parentCID=ffffffff'), bytes: Buffer.from('parentCID=12345678') });
    mutant.edits.push({ at: bytes.indexOf(0, 512), bytes: hint });
  }
  mutant.touched.push('lie');
};

const STEPS: readonly Step[] = [flip, flip, integer, integer, integer, integer, splice, shift, word, resize, lie];

/** The mutant of these random numbers: an honest image in which one to four things were changed. */
export function mutate(seeds: readonly Seed[], random: Random): Mutant {
  const shares = seeds.flatMap(seed => Array.from({ length: seed.share }, () => seed));
  const seed = pick(random, shares);
  const mutant: Mutant = { seed, edits: [], size: seed.bytes.length, touched: [] };
  for (let steps = 1 + random(random(4) + 1); steps > 0; steps--) pick(random, STEPS)(mutant, random, seeds);
  if (seed.format === 'vhdx' && random(8) > 0) reseal(mutant);
  return mutant;
}

/** A VHDX with wrong checksums is refused at once, so most get right ones. */
function reseal(mutant: Mutant): void {
  for (const [at, length] of [
    [0x1_0000, 4096],
    [0x2_0000, 4096],
    [0x3_0000, 65536],
  ] as const) {
    if (!mutant.edits.some(edit => edit.at < at + length && edit.at + edit.bytes.length > at)) continue;
    const sum = Buffer.alloc(4);
    sum.writeUInt32LE(crc32c(readMutant(mutant, at, length), 4));
    mutant.edits.push({ at: at + 4, bytes: sum });
  }
}
