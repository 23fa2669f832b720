import assert from 'node:assert/strict';
import { copyFile, mkdir, readdir, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib';
import type { CommandInput, CommandOutput } from '../../shared/commands/index.ts';
import { newId } from '../../shared/id.ts';
import { type ImageServer, startImageServer } from '../servers/http-image-server.ts';
import { assertShows, code, exec, type Host, makeDisk, MiB, ref, sha256, startHost } from './commands-host.ts';

type Input = CommandInput<'image.import'>;

/** So many frames of 64 MiB of zeros, a few KiB each. */
const manyFrames = (count: number): Buffer => Buffer.concat(Array<Buffer>(count).fill(zstdCompressSync(Buffer.alloc(64 * MiB))));

/** A qcow2 of 512 GiB, all of whose 2 MiB clusters are one and the same, which packs 2 MiB of zeros. */
function endless(): Buffer {
  const cluster = 2 * MiB;
  const image = Buffer.alloc(6 * cluster);
  const packed = deflateRawSync(Buffer.alloc(cluster), { level: 9, windowBits: 12 });
  const at = { refcounts: cluster, block: 2 * cluster, l1: 3 * cluster, l2: 4 * cluster, data: 5 * cluster };
  image.write('QFI\xfb', 'latin1');
  [3, 0, 0, 0, 21].forEach((word, i) => image.writeUInt32BE(word, 4 + 4 * i));
  image.writeBigUInt64BE(BigInt(512 * 2 ** 30), 24);
  image.writeUInt32BE(1, 36);
  image.writeBigUInt64BE(BigInt(at.l1), 40);
  image.writeBigUInt64BE(BigInt(at.refcounts), 48);
  image.writeUInt32BE(1, 56);
  [4, 104].forEach((word, i) => image.writeUInt32BE(word, 96 + 4 * i));
  image.writeBigUInt64BE(BigInt(at.block), at.refcounts);
  for (let i = 0; i < 6; i++) image.writeUInt16BE(1, at.block + 2 * i);
  image.writeBigUInt64BE(BigInt(at.l2), at.l1);
  const entry = Buffer.alloc(8);
  entry.writeBigUInt64BE((1n << 62n) | (BigInt(Math.ceil(packed.length / 512) - 1) << 49n) | BigInt(at.data));
  image.fill(entry, at.l2, at.data);
  packed.copy(image, at.data);
  return image;
}

/** How much CPU time the qemu-img may take that now converts below a folder. */
async function cpuSeconds(base: string): Promise<number> {
  for (const pid of (await readdir('/proc')).filter(name => /^\d+$/.test(name))) {
    const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (argv[0] === 'qemu-img' && argv[1] === 'convert' && argv.some(word => word.includes(base)))
      return Number(/Max cpu time +(\d+)/.exec(await readFile(`/proc/${pid}/limits`, 'utf8'))?.[1]);
  }
  throw new Error('no qemu-img converts');
}

describe('image.import', function () {
  this.timeout(60_000);
  let host: Host;
  let server: ImageServer;
  let files: string;
  let disk: string;
  let store: Awaited<ReturnType<Host['store']>>;

  before(async () => {
    host = await startHost();
    files = join(host.base, 'www');
    await mkdir(files);
    disk = await makeDisk(join(files, 'disk.raw'));
    server = await startImageServer(files);
  });
  beforeEach(async () => void (store = await host.store()));
  after(async () => {
    await server.close();
    await host[Symbol.asyncDispose]();
  });

  const wish = (over: Partial<Input>): Input => ({
    image: { id: newId(), format: 'qcow2' },
    source: { type: 'url', url: `${server.url}/disk.raw` },
    sourceFormat: null,
    expectedSha256: null,
    stores: [ref(store)],
    ...over,
  });
  const url = (name: string): Input['source'] => ({ type: 'url', url: `${server.url}/${name}` });
  const nothingIn = async (place: { path: string }): Promise<void> =>
    assert.deepEqual(await readdir(join(place.path, 'images')).catch(() => []), []);

  /** Imports a file that the web server has. */
  async function imports(name: string, over: Partial<Input> = {}): Promise<CommandOutput<'image.import'>> {
    const input = wish({ source: url(name), ...over });
    const output = await host.run('image.import', input);
    assert.equal(output.virtualSize, 8 * MiB);
    assert.equal(output.sourceSha256, await sha256(join(files, name)));
    await assertShows(store, input.image, disk);
    return output;
  }

  const conversions: [name: string, args: string[], format: string][] = [
    ['a.qcow2', ['-O', 'qcow2'], 'qcow2'],
    ['packed.qcow2', ['-c', '-O', 'qcow2'], 'qcow2'],
    ['sparse.vmdk', ['-O', 'vmdk', '-o', 'subformat=monolithicSparse'], 'vmdk'],
    ['stream.vmdk', ['-O', 'vmdk', '-o', 'subformat=streamOptimized'], 'vmdk'],
    ['a.vhdx', ['-O', 'vhdx'], 'vhdx'],
    ['a.vdi', ['-O', 'vdi'], 'vdi'],
  ];
  for (const [name, args, format] of conversions)
    it(`takes ${name} and publishes a fresh qcow2 with the same contents`, async () => {
      await exec('qemu-img', ['convert', '-f', 'raw', ...args, disk, join(files, name)]);
      assert.equal((await imports(name)).sourceFormat, format);
    });

  for (const [suffix, tool] of [
    ['gz', 'gzip'],
    ['xz', 'xz'],
    ['zst', 'zstd'],
  ] as const)
    it(`takes a raw disk packed with ${tool}`, async () => {
      await exec(tool, ['-k', '-q', '-f', disk]);
      assert.equal((await imports(`disk.raw.${suffix}`)).sourceFormat, 'raw');
    });

  it('makes a raw image when asked, with holes where the disk is zero', async () => {
    await copyFile(disk, join(files, 'large.raw'));
    await truncate(join(files, 'large.raw'), 64 * MiB);
    const input = wish({ source: url('large.raw'), image: { id: newId(), format: 'raw' } });
    const { size, transfers } = await host.run('image.import', input);
    assert.equal(size, 64 * MiB);
    assert.equal(transfers[0]?.storeId, store.id);
    assert.equal(transfers[0]?.summary.zeroParts, 3);
    await assertShows(store, input.image, join(files, 'large.raw'));
    // a part is 16 MiB
    assert.ok((await stat(join(store.path, 'images', input.image.id, 'image.raw'))).blocks * 512 <= 17 * MiB);
  });

  it('tells its stages in order', async () => {
    await exec('gzip', ['-k', '-q', '-f', disk]);
    const stages: string[] = [];
    await host.run('image.import', wish({ source: url('disk.raw.gz') }), {
      progress: stage => void (stages.at(-1) !== stage && stages.push(stage)),
    });
    assert.deepEqual(stages, ['download', 'decompress', 'inspect', 'convert', 'publish']);
  });

  it('takes what was uploaded, and says so when less came than was announced', async () => {
    const upload = async () => {
      const path = join(host.base, 'spool', newId());
      await copyFile(disk, path);
      return { path, size: 8 * MiB, sha256: await sha256(disk) };
    };
    const input = wish({ source: { type: 'upload', size: 8 * MiB }, expectedSha256: await sha256(disk) });
    await host.run('image.import', input, { upload: await upload() });
    await assertShows(store, input.image, disk);
    const short = wish({ source: { type: 'upload', size: 9 * MiB } });
    await assert.rejects(host.run('image.import', short, { upload: await upload() }), code('IMAGE_TRUNCATED'));
  });

  it('takes an object that lies on a backup storage already, and none from outside of it', async () => {
    await mkdir(join(store.path, 'templates'));
    await copyFile(disk, join(store.path, 'templates', 'disk.raw'));
    const object = (path: string): Input => wish({ source: { type: 'object', store: ref(store), path }, expectedSha256: null });
    const input = { ...object('templates/disk.raw'), expectedSha256: await sha256(disk) };
    await host.run('image.import', input);
    await assertShows(store, input.image, disk);
    await symlink(disk, join(store.path, 'templates', 'link.raw'));
    await assert.rejects(host.run('image.import', object('../x')), code('BAD_REQUEST'));
    await assert.rejects(host.run('image.import', object('/etc/passwd')), code('BAD_REQUEST'));
    await assert.rejects(host.run('image.import', object('templates/none.raw')), code('OBJECT_MISSING'));
    await assert.rejects(host.run('image.import', object('templates/link.raw')), code('OBJECT_MISSING'));
    assert.deepEqual(await readdir(join(store.path, 'images')), [input.image.id]);
  });

  it('refuses bytes that do not have the expected SHA-256', async () => {
    await assert.rejects(host.run('image.import', wish({ expectedSha256: '0'.repeat(64) })), code('IMAGE_CHECKSUM'));
    await nothingIn(store);
  });

  it('publishes on all stores or on none', async () => {
    const [second, broken] = [await host.store(), await host.store()];
    await writeFile(join(broken.path, 'images'), 'in the way');
    const input = wish({ stores: [ref(store), ref(second), ref(broken)] });
    await assert.rejects(host.run('image.import', input), code('STORE_PERMISSION'));
    await nothingIn(store);
    await nothingIn(second);
    const both = wish({ stores: [ref(store), ref(second)] });
    assert.equal((await host.run('image.import', both)).transfers.length, 2);
    for (const place of [store, second]) await assertShows(place, both.image, disk);
  });

  describe('refuses what could hurt, before a qemu program sees it', () => {
    const hostile: [what: string, make: (path: string) => Promise<unknown>, declared: Input['sourceFormat'], refusal: string][] =
      [
        [
          'a qcow2 that stands on a file of the host',
          path => exec('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/passwd', path, '1M']),
          null,
          'IMAGE_BACKING_FILE',
        ],
        [
          'a qcow2 whose data is another file',
          path => exec('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `data_file=${path}.data,data_file_raw=on`, path, '1M']),
          null,
          'IMAGE_DATA_FILE',
        ],
        [
          'a VMDK descriptor that names a file',
          path =>
            writeFile(
              path,
              '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/passwd" 0\n',
            ),
          null,
          'IMAGE_EXTENT_PATH',
        ],
        ['a disk of another format than declared', path => copyFile(disk, path), 'qcow2', 'IMAGE_FORMAT_MISMATCH'],
        [
          'a page of HTML',
          path => writeFile(path, '<!DOCTYPE html><html>not found</html>'.repeat(100)),
          null,
          'IMAGE_FORMAT_UNKNOWN',
        ],
        ['an empty file', path => writeFile(path, ''), null, 'IMAGE_TRUNCATED'],
        ['a small file that unpacks to more than a GiB', path => writeFile(path, manyFrames(17)), null, 'IMAGE_RATIO'],
        [
          'a packed file that is cut off',
          path => writeFile(path, gzipSync(Buffer.alloc(MiB, 1)).subarray(0, 500)),
          null,
          'IMAGE_TRUNCATED',
        ],
      ];
    for (const [what, make, declared, refusal] of hostile)
      it(what, async () => {
        const careful = await startHost({ maxExpansion: 100 });
        try {
          await make(join(files, 'hostile'));
          await assert.rejects(
            careful.run('image.import', wish({ source: url('hostile'), sourceFormat: declared })),
            code(refusal),
          );
          await nothingIn(store);
        } finally {
          await careful[Symbol.asyncDispose]();
        }
      });

    for (const format of ['qcow2', 'raw'] as const)
      it(`a small image that becomes a large ${format}, be it made ever so fast`, async () => {
        const careful = await startHost({ maxImageSize: 2 * MiB });
        try {
          const [plain, packed] = [join(files, 'plain.raw'), join(files, 'packs-well.qcow2')];
          await writeFile(plain, Buffer.alloc(8 * MiB, 'x'));
          await exec('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', plain, packed]);
          const input = wish({ source: url('packs-well.qcow2'), image: { id: newId(), format } });
          await assert.rejects(careful.run('image.import', input), code('IMAGE_EXPANSION'));
          await nothingIn(store);
        } finally {
          await careful[Symbol.asyncDispose]();
        }
      });

    it('a small image that shows the same zeros for ever gets no more time than what it may become would take', async () => {
      const careful = await startHost({ maxExpansion: 10 });
      try {
        await writeFile(join(files, 'endless.qcow2.gz'), gzipSync(endless()));
        const abort = new AbortController();
        let seconds: Promise<number> | undefined;
        const importing = careful.run('image.import', wish({ source: url('endless.qcow2.gz') }), {
          signal: abort.signal,
          progress: stage => {
            if (stage === 'convert') seconds ??= cpuSeconds(careful.base).finally(() => abort.abort());
          },
        });
        await assert.rejects(importing, (error: Error) => error.name === 'AbortError' || code('CANCELLED')(error));
        assert.equal(await seconds, 300 + 2 ** 30 / (4 * MiB));
        await nothingIn(store);
      } finally {
        await careful[Symbol.asyncDispose]();
      }
    });

    it('an address inside, unless it is allowed', async () => {
      const outside = await startHost({ importAllow: [] });
      try {
        await assert.rejects(outside.run('image.import', wish({})), code('URL_REFUSED'));
      } finally {
        await outside[Symbol.asyncDispose]();
      }
    });

    it('a file larger than allowed, wherever it comes from', async () => {
      const small = await startHost({ maxImageSize: MiB });
      try {
        const object: Input['source'] = { type: 'object', store: ref(store), path: 'disk.raw' };
        await copyFile(disk, join(store.path, 'disk.raw'));
        await assert.rejects(small.run('image.import', wish({})), code('IMAGE_TOO_LARGE'));
        await assert.rejects(small.run('image.import', wish({ source: object })), code('IMAGE_TOO_LARGE'));
      } finally {
        await small[Symbol.asyncDispose]();
      }
    });
  });

  for (const stage of ['download', 'decompress', 'inspect', 'convert', 'publish'])
    it(`a cancel while it is at "${stage}" leaves nothing behind`, async () => {
      await exec('gzip', ['-k', '-q', '-f', disk]);
      const abort = new AbortController();
      const cancelled = host.run('image.import', wish({ source: url('disk.raw.gz') }), {
        signal: abort.signal,
        progress: at => at === stage && abort.abort(),
      });
      await assert.rejects(cancelled, (error: Error) => error.name === 'AbortError' || code('CANCELLED')(error));
      await nothingIn(store);
    });
});
