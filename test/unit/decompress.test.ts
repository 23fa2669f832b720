import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, gzipSync, zstdCompressSync as zstdSync } from 'node:zlib';
import { compressionOf, decompress, type Compression, type DecompressOptions } from '../../agent/host/decompress.ts';
import { unmount } from '../../agent/host/mount.ts';
import { run } from '../../agent/host/run.ts';
import { CisternError } from '../../shared/errors.ts';

const MiB = 2 ** 20;
const fails = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof CisternError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, words);
  return true;
};
// With the checksum that the tool writes by default.
const zstdCompressSync = (data: Buffer): Buffer => zstdSync(data, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
// What the tools that people use write: gzip and xz with their own checks, zstd by the same library as its tool.
const packed: Record<Compression, (data: Buffer, folder: string) => Promise<Buffer>> = {
  gz: data => Promise.resolve(gzipSync(data)),
  zst: data => Promise.resolve(zstdCompressSync(data)),
  xz: async (data, folder) => {
    writeFileSync(join(folder, 'plain'), data);
    await run('xz', ['-1', '--force', '--', join(folder, 'plain')]);
    return readFileSync(join(folder, 'plain.xz'));
  },
};

describe('decompressing an image', () => {
  let folder: string;
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'decompress-'))));
  afterEach(() => rmSync(folder, { recursive: true }));
  const source = (): string => join(folder, 'source');
  const target = (): string => join(folder, 'target');
  const put = (data: Buffer): void => writeFileSync(source(), data);
  const unpack = (compression: Compression, more: Partial<DecompressOptions> = {}) =>
    decompress({ source: source(), target: target(), compression, maxBytes: 64 * MiB, maxRatio: 1000, ...more });
  const refuses = async (promise: Promise<unknown>, code: string, words: RegExp) => {
    await assert.rejects(promise, fails(code, words));
    assert.ok(!existsSync(target()), 'nothing is left');
  };
  // Noise, 2 MiB of zeros that begin and end off any block boundary, noise and an odd rest.
  const image = Buffer.concat([randomBytes(300_000), Buffer.alloc(2 * MiB), randomBytes(300_000), Buffer.alloc(777)]);

  for (const compression of ['gz', 'xz', 'zst'] as const)
    describe(`from ${compression}`, () => {
      it('gives back the very bytes, with holes for zeros, and tells how far it is', async () => {
        put(await packed[compression](image, folder));
        assert.equal(await compressionOf(source()), compression);
        const seen: number[] = [];
        const total = statSync(source()).size;
        assert.deepEqual(await unpack(compression, { progress: done => seen.push(done) }), { size: image.length });
        assert.ok(readFileSync(target()).equals(image));
        assert.ok(statSync(target()).blocks * 512 < image.length - MiB, 'zeros take no space');
        assert.equal(seen.at(-1), total);
        assert.deepEqual(
          seen,
          [...seen].sort((a, b) => a - b),
        );
      });

      it('keeps a file of nothing but zeros at its full length', async () => {
        put(await packed[compression](Buffer.alloc(3 * MiB + 5), folder));
        assert.deepEqual(await unpack(compression, { maxRatio: 1e6 }), { size: 3 * MiB + 5 });
        assert.ok(readFileSync(target()).equals(Buffer.alloc(3 * MiB + 5)));
        assert.equal(statSync(target()).blocks, 0);
      });

      it('reads several compressed pieces one after the other, as parallel compressors write them', async () => {
        const pieces = [image.subarray(0, MiB), image.subarray(MiB, 3 * MiB), image.subarray(3 * MiB)];
        put(
          Buffer.concat(
            await Promise.all(
              pieces.map((piece, i) => (mkdirSync(join(folder, `${i}`)), packed[compression](piece, join(folder, `${i}`)))),
            ),
          ),
        );
        assert.deepEqual(await unpack(compression), { size: image.length });
        assert.ok(readFileSync(target()).equals(image));
      });

      it('takes off one layer only', async () => {
        const inner = await packed[compression](image.subarray(0, 5000), folder);
        put(await packed[compression](inner, folder));
        await unpack(compression);
        assert.ok(readFileSync(target()).equals(inner));
      });

      it('tells a file that was cut from one that was damaged', async () => {
        const whole = await packed[compression](image, folder);
        for (const length of [whole.length - 3, whole.length >> 1, 20]) {
          put(whole.subarray(0, length));
          await refuses(unpack(compression), 'IMAGE_TRUNCATED', /end of|ends/);
        }
        const damaged = Buffer.from(whole);
        damaged.fill(0xff, 400_000, 400_100);
        put(damaged);
        await refuses(unpack(compression), 'IMAGE_CORRUPT', new RegExp(`\\(${compression}\\)`));
        put(Buffer.from('this is not what it says it is'));
        await refuses(unpack(compression), 'IMAGE_CORRUPT', new RegExp(`\\(${compression}\\)`));
      });

      it('stops at the largest size and the largest ratio', async () => {
        put(await packed[compression](image, folder));
        await refuses(
          unpack(compression, { maxBytes: image.length - 1 }),
          'IMAGE_TOO_LARGE',
          new RegExp(`${image.length - 1} bytes`),
        );
        assert.equal((await unpack(compression, { maxBytes: image.length })).size, image.length);
        rmSync(target());
        put(await packed[compression](Buffer.alloc(32 * MiB), folder));
        await refuses(unpack(compression, { maxRatio: 100 }), 'IMAGE_RATIO', /more than 100 times/);
      });

      it('stops on cancel', async () => {
        put(await packed[compression](image, folder));
        const cancel = new AbortController();
        await refuses(unpack(compression, { signal: cancel.signal, progress: () => cancel.abort() }), 'CANCELLED', /cancelled/);
        await refuses(unpack(compression, { signal: cancel.signal }), 'CANCELLED', /cancelled/);
      });

      it('says when the disk is full', async () => {
        put(await packed[compression](image, folder));
        mkdirSync(join(folder, 'small'));
        await run('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', join(folder, 'small')]);
        try {
          const small = join(folder, 'small/target');
          await assert.rejects(unpack(compression, { target: small }), fails('NO_CAPACITY', /ENOSPC/));
          assert.ok(!existsSync(small));
        } finally {
          await unmount(join(folder, 'small'));
        }
      });
    });

  it('skips the frames that pzstd puts between its data', async () => {
    const skippable = Buffer.from('502a4d180400000001020304', 'hex');
    put(
      Buffer.concat([
        skippable,
        zstdCompressSync(image.subarray(0, MiB)),
        skippable,
        zstdCompressSync(image.subarray(MiB)),
        skippable,
      ]),
    );
    assert.equal(await compressionOf(source()), 'zst');
    assert.equal((await unpack('zst')).size, image.length);
    assert.ok(readFileSync(target()).equals(image));
  });

  it('refuses a file that wants more memory than an honest one', async () => {
    const xz = await packed.xz(randomBytes(1000), folder);
    put(xz);
    const wide = Buffer.from(xz);
    // Block header: size, flags, LZMA2 filter id, its size, dictionary size; then padding and its CRC32. 0x28: 4 GiB - 1.
    assert.equal(wide[14], 0x21);
    wide[16] = 0x28;
    const { crc32 } = await import('node:zlib');
    const length = ((wide[12] ?? 0) + 1) * 4;
    wide.writeUInt32LE(crc32(wide.subarray(12, 12 + length - 4)), 12 + length - 4);
    put(wide);
    await refuses(unpack('xz'), 'IMAGE_TOO_LARGE', /Memory usage limit/);
    // zstd: single frame without a size, window of 2^31.
    put(Buffer.concat([Buffer.from('28b52ffd00a8', 'hex'), Buffer.from('090000', 'hex'), Buffer.from('x')]));
    await refuses(unpack('zst'), 'IMAGE_TOO_LARGE', /too much memory/);
  });

  it('knows what is not compressed', async () => {
    for (const data of [Buffer.alloc(0), Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(1000), Buffer.from([0x1f])]) {
      put(data);
      assert.equal(await compressionOf(source()), null);
    }
    await assert.rejects(compressionOf(join(folder, 'none')), fails('IO_ERROR', /ENOENT/));
  });

  it('never writes over a file that was there before', async () => {
    put(gzipSync(image));
    writeFileSync(target(), 'precious');
    await assert.rejects(unpack('gz'), fails('IO_ERROR', /EEXIST/));
    assert.equal(readFileSync(target(), 'utf8'), 'precious');
  });
});
