import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import type { ErrorCode } from '../../../shared/errors.ts';
import { be32, be64, honestBytes, text, type CorpusImage } from './image.ts';

/** How much larger than its compressed form what comes out may be in these tests. */
export const MAX_RATIO = 100;
const MIB = 2 ** 20;

type Pack = (bytes: Buffer) => Promise<Buffer>;
const PACKERS: Record<string, Pack> = {
  gz: bytes => Promise.resolve(gzipSync(bytes)),
  xz,
  // with checksums, as the zstd program writes them
  zst: bytes => Promise.resolve(zstdCompressSync(bytes, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })),
};

/** The same through each compression. */
export const COMPRESSED: CorpusImage[] = Object.entries(PACKERS).flatMap(([kind, pack]) => {
  const one = (name: string, code: ErrorCode | null, bytes: (dir: string) => Promise<Buffer>): CorpusImage => ({
    kind,
    name,
    code,
    async make(dir) {
      const path = join(dir, `packed.${kind}`);
      await writeFile(path, await bytes(dir));
      return path;
    },
  });
  return [
    one('a qcow2', null, async dir => pack(mixed(await honestBytes('qcow2', dir)))),
    one('a bomb: 16 MiB of zeros', 'IMAGE_RATIO', () => pack(Buffer.alloc(16 * MIB))),
    one('a bomb behind honest bytes', 'IMAGE_RATIO', () => pack(Buffer.concat([noise(4096), Buffer.alloc(16 * MIB)]))),
    one('a qcow2 with a backing file', 'IMAGE_BACKING_FILE', async dir => {
      const bytes = mixed(await honestBytes('qcow2', dir));
      [be64(8, 0x300n), be32(16, 11), text(0x300, '/etc/passwd')].forEach(change => change(bytes));
      return pack(bytes);
    }),
    one('compressed twice', 'IMAGE_FORMAT_UNKNOWN', async () => pack(await pack(noise(64 * 1024)))),
    one('cut', 'IMAGE_TRUNCATED', async () => (await pack(noise(MIB))).subarray(0, MIB / 2)),
    one('damaged', 'IMAGE_CORRUPT', async () => damaged(await pack(Buffer.from(noise(MIB).toString('hex'))))),
    one('noise behind its magic', 'IMAGE_CORRUPT', async () =>
      Buffer.concat([(await pack(noise(64))).subarray(0, 6), noise(MIB).fill(0xff)]),
    ),
  ];
});

/** What does not compress, the same in each run. */
function noise(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let seed = 1;
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((seed = Math.imul(seed, 0x19660d) + 0x3c6ef35f) >>> 0, at);
  return bytes;
}

/** An image with data that does not compress in place of some of its zeros, behind its tables. */
function mixed(image: Buffer): Buffer {
  const data = noise(128 * 1024);
  data.copy(image, image.length - data.length);
  return image;
}

function damaged(bytes: Buffer): Buffer {
  for (let at = bytes.length / 2; at < bytes.length / 2 + 64; at++) bytes[Math.floor(at)] = 0xff;
  return bytes;
}

function xz(bytes: Buffer): Promise<Buffer> {
  return new Promise((done, fail) => {
    const child = execFile('xz', ['-1', '-c'], { encoding: 'buffer', maxBuffer: 64 * MIB }, (error, stdout) =>
      error ? fail(error) : done(stdout),
    );
    child.stdin?.end(bytes);
  });
}
