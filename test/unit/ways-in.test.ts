import assert from 'node:assert/strict';
import { copyFile, mkdir, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { publishImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { newId } from '../../shared/id.ts';
import { type ImageServer, startImageServer } from '../servers/http-image-server.ts';
import { code, exec, type Host, makeDisk, MiB, ref, sha256, startHost } from './commands-host.ts';
import { script } from './hostile-program.ts';

/** Overwrites bytes of a file. */
async function patch(path: string, at: number, bytes: number[]): Promise<void> {
  await using file = await open(path, 'r+');
  await file.write(Buffer.from(bytes), 0, bytes.length, at);
}

describe('ways in: the same judge at each', function () {
  this.timeout(60_000);
  let host: Host;
  let server: ImageServer;
  let files: string;
  let disk: string;
  let store: Awaited<ReturnType<Host['store']>>;
  let pool: Awaited<ReturnType<Host['pool']>>;
  /** Whoever opens this pipe waits for ever: no test ends in time if anything does. */
  let canary: string;

  before(async () => {
    host = await startHost();
    files = join(host.base, 'www');
    await mkdir(files);
    disk = await makeDisk(join(host.base, 'disk.raw'));
    canary = join(host.base, 'canary');
    await exec('mkfifo', ['--', canary]);
    server = await startImageServer(files);
  });
  beforeEach(async () => {
    store = await host.store();
    pool = await host.pool();
  });
  after(async () => {
    await server.close();
    await host[Symbol.asyncDispose]();
  });

  const qcow2 = (path: string, ...options: string[]) => exec('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, '8M']);
  const converted = (path: string) => exec('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', disk, path]);
  const HOSTILE: [what: string, make: (path: string) => Promise<unknown>, refusal: string][] = [
    ['stands on a file of the host', path => qcow2(path, '-u', '-F', 'raw', '-b', canary), 'IMAGE_BACKING_FILE'],
    [
      'keeps its data in a file of the host',
      async path => {
        await qcow2(path, '-o', `data_file=${path}.data`);
        await rm(`${path}.data`);
        await exec('mkfifo', ['--', `${path}.data`]);
      },
      'IMAGE_DATA_FILE',
    ],
    ['has a feature that nobody knows', path => qcow2(path).then(() => patch(path, 72, [0x80])), 'IMAGE_FEATURE_UNKNOWN'],
    ['is encrypted', path => qcow2(path).then(() => patch(path, 35, [1])), 'IMAGE_ENCRYPTED'],
    [
      'is only a descriptor that names files',
      path => writeFile(path, `# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "${canary}" 0\n`),
      'IMAGE_EXTENT_PATH',
    ],
    [
      'is two formats at once',
      path => converted(path).then(() => patch(path, 32769, [...Buffer.from('CD001')])),
      'IMAGE_AMBIGUOUS',
    ],
  ];

  type Source = Parameters<typeof importing>[0];
  const importing = (
    source:
      | { type: 'url'; url: string }
      | { type: 'upload'; size: null }
      | { type: 'object'; store: ReturnType<typeof ref>; path: string },
    upload?: { path: string; size: number; sha256: string },
  ) =>
    host.run(
      'image.import',
      { image: { id: newId(), format: 'qcow2' }, source, sourceFormat: null, expectedSha256: null, stores: [ref(store)] },
      { ...(upload && { upload }) },
    );

  /** Every way in which bytes of others become an image or a cached image. */
  const WAYS: Record<string, (path: string) => Promise<unknown>> = {
    'a URL': async path => {
      await copyFile(path, join(files, 'image'));
      return importing({ type: 'url', url: `${server.url}/image` });
    },
    'an upload': async path => {
      const sent = join(host.base, 'spool', newId());
      await copyFile(path, sent);
      return importing(
        { type: 'upload', size: null },
        { path: sent, size: (await readFile(sent)).length, sha256: await sha256(sent) },
      );
    },
    'an object that lay on a backup storage': async path => {
      await copyFile(path, join(store.path, 'object'));
      return importing({ type: 'object', store: ref(store), path: 'object' } satisfies Source);
    },
    'a template changed on its backup storage, manifest and all': async path => {
      const image = { id: newId(), format: 'qcow2' as const };
      const digest = await put(image, path);
      return host.run('cache.fill', { pool: ref(pool), image: { ...image, digest }, stores: [ref(store)] });
    },
  };

  /** Puts a file on the store as an image, just as somebody can who may write there. Returns its digest. */
  async function put(image: { id: string; format: 'qcow2' | 'raw' }, path: string): Promise<string> {
    await using opened = await openStore();
    const { manifest } = await publishImage(opened.store, { ...image, virtualSize: 8 * MiB }, await fileSource(path), {
      streams: 1,
      stallSeconds: 10,
      signal: new AbortController().signal,
    });
    return manifest.digest;
  }
  async function openStore() {
    const opened = await openBackupStore(ref(store), new AbortController().signal);
    return { store: opened, [Symbol.asyncDispose]: () => opened.close() };
  }

  for (const [way, bring] of Object.entries(WAYS)) {
    it(`${way}: an honest image comes in`, async () => {
      const honest = join(host.base, 'honest.qcow2');
      await rm(honest, { force: true });
      await converted(honest);
      await bring(honest);
    });
    for (const [what, make, refusal] of HOSTILE)
      it(`${way}: an image that ${what} is refused, and nothing is left of it`, async () => {
        const hostile = join(host.base, `hostile-${newId()}`);
        await make(hostile);
        const before = await readdir(join(store.path, 'images')).catch(() => []);
        await assert.rejects(bring(hostile), code(refusal));
        const left = [await readdir(join(pool.path, 'cache')), await readdir(join(pool.path, 'tmp'))];
        assert.deepEqual(left, [[], []]);
        if (!way.startsWith('a template')) assert.deepEqual(await readdir(join(store.path, 'images')).catch(() => []), before);
      });
  }

  it('a template that was replaced by another honest one, manifest and all, is not the one that was published', async () => {
    const image = { id: newId(), format: 'qcow2' as const };
    const [first, second] = [join(host.base, 'first'), join(host.base, 'second')];
    await converted(first);
    const digest = await put(image, first);
    await copyFile(first, second);
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 7 0 1M', second]);
    assert.notEqual(await put(image, second), digest);
    const fill = () => host.run('cache.fill', { pool: ref(pool), image: { ...image, digest }, stores: [ref(store)] });
    await assert.rejects(fill(), code('DIGEST_MISMATCH'));
    assert.deepEqual(await readdir(join(pool.path, 'cache')), []);
  });

  it('a template whose manifest tells a smaller disk than a guest would see is refused', async () => {
    const image = { id: newId(), format: 'qcow2' as const };
    const large = join(host.base, 'large');
    await exec('qemu-img', ['create', '-q', '-f', 'qcow2', large, '9M']);
    const digest = await put(image, large);
    const fill = host.run('cache.fill', { pool: ref(pool), image: { ...image, digest }, stores: [ref(store)] });
    await assert.rejects(fill, code('IMAGE_CORRUPT'));
  });

  it('what a converter makes that was taken over by its image is judged like what came', async () => {
    const [honest, bin, path] = [join(host.base, 'seen'), join(host.base, 'bin'), process.env['PATH'] ?? ''];
    await converted(honest);
    await mkdir(bin);
    await qcow2(join(bin, 'made'), '-u', '-F', 'raw', '-b', canary);
    const made = (await readFile(join(bin, 'made'))).toString('base64');
    await script(
      bin,
      'qemu-img',
      `use MIME::Base64; open(my $out, '+<', $ARGV[-1]) or die $!; print $out decode_base64('${made}');`,
    );
    process.env['PATH'] = [bin, path].join(delimiter);
    try {
      await assert.rejects(WAYS['a URL']!(honest), code('IMAGE_BACKING_FILE'));
    } finally {
      process.env['PATH'] = path;
    }
    assert.deepEqual(await readdir(join(store.path, 'images')).catch(() => []), []);
  });

  describe('a volume whose header was changed by whoever broke out of its VM', () => {
    let volume: { id: string; layerId: string };
    let layer: string;
    beforeEach(async () => {
      const image = { id: newId(), format: 'qcow2' as const };
      const honest = join(host.base, `honest-${image.id}`);
      await converted(honest);
      const digest = await put(image, honest);
      await host.run('cache.fill', { pool: ref(pool), image: { ...image, digest }, stores: [ref(store)] });
      volume = { id: newId(), layerId: newId() };
      const backing = { imageId: image.id, format: image.format, virtualSize: 8 * MiB, digest };
      await host.run('volume.create', { pool: ref(pool), volumes: [volume], size: null, backing });
      layer = join(pool.path, 'volumes', volume.id, `${volume.layerId}.qcow2`);
    });
    const upload = () => {
      const image = { id: newId(), format: 'raw' as const };
      const input = {
        pool: ref(pool),
        volumeId: volume.id,
        layerId: volume.layerId,
        image,
        compress: false,
        stores: [ref(store)],
      };
      return host.run('volume.upload', input).then(() => join(store.path, 'images', image.id, 'image.raw'));
    };
    const grow = () =>
      host.run('volume.resize', { pool: ref(pool), volumeId: volume.id, layerId: volume.layerId, size: 9 * MiB });

    it('stands on its own image still, not on the file that it names', async () => {
      await exec('qemu-img', ['rebase', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', canary, layer]);
      await exec('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', await upload(), disk]);
      assert.equal((await grow()).size, 9 * MiB);
    });

    it('is refused where it names a file for its data', async () => {
      await patch(layer, 79, [4 | 16]); // the external data file's bit, beside that of sub-clusters
      await assert.rejects(upload(), code('IMAGE_DATA_FILE'));
      await assert.rejects(grow(), code('IMAGE_DATA_FILE'));
    });
  });
});
