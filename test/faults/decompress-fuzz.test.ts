import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import { type Compression, decompress } from '../../agent/host/decompress.ts';
import { run } from '../../agent/host/run.ts';
import { CisternError } from '../../shared/errors.ts';
import { pick, type Random, randomOf } from './fuzz/random.ts';

const MiB = 2 ** 20;
/** xz is a program in a cage of its own for each file. */
const COUNT: Record<Compression, number> = { gz: 1000, zst: 1000, xz: 100 };

describe('decompressors stand what is done to honest files', function () {
  this.timeout(300_000);
  // CISTERN_SEED=seed FUZZ_INDEX=index make one mutant again
  const seed = Number(process.env.CISTERN_SEED ?? Math.floor(Math.random() * 2 ** 31));
  const only = process.env.FUZZ_INDEX;
  const noise = randomOf(seed, -1);
  const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, () => noise(256)));
  const text = Buffer.from('the same words again and again, '.repeat(3000));
  /** What lies in the members or frames of each file, no one the beginning of another. */
  const pieces = [bytes(20_000), Buffer.concat([bytes(99), Buffer.alloc(150_000), bytes(500)]), text, bytes(1)];
  const whole = Buffer.concat(pieces);
  const folder = mkdtempSync(join(tmpdir(), 'cistern-decompress-'));
  const [source, target] = [join(folder, 'source'), join(folder, 'target')];
  after(() => rmSync(folder, { recursive: true }));

  const skippable = Buffer.from('502a4d180400000001020304', 'hex');
  const zstd = (data: Buffer): Buffer => zstdCompressSync(data, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  const xz = async (data: Buffer, i: number): Promise<Buffer> => {
    const plain = join(folder, `plain-${i}`);
    writeFileSync(plain, data);
    await run('xz', ['-1', '--', plain]);
    return readFileSync(`${plain}.xz`);
  };
  const honest: Record<Compression, () => Promise<Buffer[]>> = {
    gz: () => Promise.resolve(pieces.map(piece => gzipSync(piece))),
    zst: () => Promise.resolve([skippable, ...pieces.flatMap(piece => [zstd(piece), skippable])]),
    xz: () => Promise.all(pieces.map(xz)),
  };
  /** More than the whole, so that repeated members fit, and little enough that a bomb does not. */
  const maxBytes = 2 * whole.length;

  for (const compression of ['gz', 'zst', 'xz'] as const)
    it(`${COUNT[compression]} mutants of .${compression}: the very bytes, or an IMAGE code and nothing left`, async () => {
      const members = await honest[compression]();
      const good = Buffer.concat(members);
      const before = process.resourceUsage().maxRSS;
      const verdicts = new Map<string, number>();
      const [from, to] = only === undefined ? [0, COUNT[compression]] : [Number(only), Number(only) + 1];
      for (let index = from; index < to; index++) {
        const random = randomOf(seed, index);
        // each tenth is the honest one: a mutant before it spoils nothing
        const mutant = index % 10 === 0 ? good : mutate(good, members, random);
        writeFileSync(source, mutant);
        const told = `CISTERN_SEED=${seed} FUZZ_INDEX=${index}`;
        const refused = await decompress({ source, target, compression, maxBytes, maxRatio: 1000 }).then(
          () => undefined,
          (error: unknown) => error,
        );
        if (refused === undefined) {
          const found = readFileSync(target);
          if (mutant.length === good.length) assert.ok(found.equals(whole), `${told}: other bytes`);
          else assert.ok(isMadeOf(found, pieces), `${told}: ${found.length} bytes that are not whole members`);
          rmSync(target);
        } else {
          const isRefusal = refused instanceof CisternError && refused.code.startsWith('IMAGE_');
          assert.ok(isRefusal, `${told}: ${refused instanceof Error ? refused.stack : String(refused)}`);
          assert.ok(!existsSync(target), `${told}: something is left`);
        }
        const verdict = refused instanceof CisternError ? refused.code : 'accepted';
        verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
      }
      const grown = (process.resourceUsage().maxRSS - before) / 1024;
      const table = [...verdicts].map(([verdict, count]) => `${verdict} ${count}`).join(', ');
      console.log(`      CISTERN_SEED=${seed}: ${table}; memory +${grown.toFixed(0)} MiB`);
      assert.ok(grown < 512, `memory grew by ${grown} MiB`);
      if (only === undefined) assert.ok((verdicts.get('accepted') ?? 0) >= to / 10 && verdicts.size > 2, table);
    });

  const refuses = (compression: Compression, code: string, words: RegExp) =>
    assert.rejects(
      decompress({ source, target, compression, maxBytes: 64 * MiB, maxRatio: 1000 }),
      (error: unknown) => error instanceof CisternError && error.code === code && words.test(error.message),
    );

  it('a hundred thousand frames with next to nothing in them are given up after the first few thousand', async () => {
    for (const frame of [Buffer.from('28b52ffd2000010000', 'hex'), zstdCompressSync(Buffer.from('a'))]) {
      writeFileSync(source, Buffer.alloc(frame.length * 1e5, frame));
      await refuses('zst', 'IMAGE_RATIO', /2\d{3} frames/);
    }
  }).timeout(120_000);

  it('a million empty members are nothing, and soon', async () => {
    const member = gzipSync('');
    writeFileSync(source, Buffer.alloc(member.length * 1e6, member));
    assert.equal((await decompress({ source, target, compression: 'gz', maxBytes: MiB, maxRatio: 1000 })).size, 0);
  }).timeout(60_000);

  it('a gz file ends at zeros only if nothing else follows', async () => {
    const [one, two] = [gzipSync(pieces[0]!), gzipSync(pieces[1]!)];
    for (const zeros of [1, 1000, MiB]) {
      rmSync(target, { force: true });
      writeFileSync(source, Buffer.concat([one, Buffer.alloc(zeros)]));
      await decompress({ source, target, compression: 'gz', maxBytes: MiB, maxRatio: 1000 });
      assert.ok(readFileSync(target).equals(pieces[0]!));
      rmSync(target);
      writeFileSync(source, Buffer.concat([one, Buffer.alloc(zeros), two]));
      await refuses('gz', 'IMAGE_CORRUPT', /no member begins at byte|incorrect header/);
    }
  });
});

/** One to three edits: bits, bytes, cuts, holes, repeated and moved ranges; some at the borders of members, where decoders stop looking. */
function mutate(good: Buffer, members: Buffer[], random: Random): Buffer {
  let bytes = Buffer.from(good);
  const borders = members.map((_, i) => members.slice(0, i).reduce((sum, member) => sum + member.length, 0));
  const place = (): number => {
    const at = random(3) === 0 ? random(good.length) : pick(random, borders) + random(24) - (random(2) === 0 ? 12 : 0);
    return Math.min(Math.max(at, 0), Math.max(bytes.length - 1, 0));
  };
  for (let edits = 1 + random(3); edits > 0 && bytes.length > 0; edits--) {
    const at = place();
    const length = pick(random, [1, 4, 18, 1000, 30_000]);
    const kind = random(8);
    if (kind < 3) bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
    else if (kind === 3) bytes.fill(pick(random, [0, 0xff, 0x1f, 0x28]), at, at + 1);
    else if (kind === 4) bytes = bytes.subarray(0, at);
    else if (kind === 5) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
    else if (kind === 6) bytes = Buffer.concat([bytes.subarray(0, at), Buffer.alloc(length), bytes.subarray(at)]);
    else bytes = Buffer.concat([bytes.subarray(0, at), pick(random, members), bytes.subarray(at)]);
  }
  return bytes;
}

/** Whether `bytes` are some of the pieces one after the other. */
function isMadeOf(bytes: Buffer, pieces: Buffer[]): boolean {
  for (let at = 0; at < bytes.length;) {
    const next = pieces.find(piece => bytes.subarray(at, at + piece.length).equals(piece));
    if (next === undefined) return false;
    at += next.length;
  }
  return true;
}
