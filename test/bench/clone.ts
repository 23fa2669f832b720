/**
 * Linked clones through the API, beside raw `qemu-img create -b` in the same run; and what a guest feels of the options that they are
 * made with: first writes of 4 KiB, and the space these take.
 */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { type Cistern, done, startCistern, WAIT } from '../servers/cistern.ts';
import { firstWrites } from './clone/first-writes.ts';
import { interleave, medianOf, quantileOf, ratioOf, type Row } from './row.ts';

const SINGLE = 60;
const PARALLEL = 320;
const AT_ONCE = 16;
const BATCH = 500;
const ROUNDS = 3;
/** A disk as images are: half of it data, which a first write to a part of a cluster must copy. */
const SIZE = 2 * 2 ** 30;
const DATA = 2 ** 30;

export async function bench(): Promise<Row[]> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.adopt(await mkdtemp(join(tmpdir(), 'cistern-bench-')), path => rm(path, { recursive: true, force: true }));
  const house = stack.use(await startCistern(folder));
  const base = join(folder, 'base.qcow2');
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '--', base, String(SIZE)]);
  const writes = Array.from({ length: DATA / 2 ** 26 }, (_, i) => ['-c', `write -q -P ${i + 1} ${i * 64}M 64M`]).flat();
  await execa('qemu-io', ['-f', 'qcow2', ...writes, '--', base]);
  await done(
    house.api.addPrimaryStorage(
      { body: { name: 'pool', type: 'local', config: { path: house.dir('pool') }, overcommit: 1000 } },
      WAIT,
    ),
  );
  await done(house.api.addBackupStorage({ body: { name: 'store', type: 'dir', config: { path: house.dir('store') } } }, WAIT));
  await done(
    house.api.importImage(
      { body: { name: 'base', source: { type: 'object', backupStorage: 'store', path: await onStore(house, base) } } },
      WAIT,
    ),
  );
  await done(house.api.addToCache({ body: { image: 'base', primaryStorage: 'pool' } }, WAIT));
  const raw = house.dir('raw');
  const cached = join(raw, 'cached.qcow2');
  await execa('cp', ['--', base, cached]);

  const names = (function* () {
    for (let i = 1; ; i++) yield `v${i}`;
  })();
  const next = (): string => names.next().value as string;
  const one = async () => void (await done(house.api.createVolumes({ body: { name: next(), image: 'base' } }, WAIT)));
  const seconds = async (work: () => Promise<unknown>): Promise<number> => {
    const began = performance.now();
    await work();
    return (performance.now() - began) / 1000;
  };
  const qemuCreate = () =>
    execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', cached, '--', join(raw, next())], { stdin: 'ignore' });

  for (let i = 0; i < 20; i++) await Promise.all([one(), qemuCreate()]); // warm
  const single = await interleave({ ours: () => seconds(one), raw: () => seconds(qemuCreate) }, SINGLE);
  const [ms, rawMs] = [single.ours.map(s => s * 1000), single.raw.map(s => s * 1000)];

  const parallel = await interleave(
    {
      ours: async () => PARALLEL / (await seconds(() => inParallel(PARALLEL, AT_ONCE, one))),
      raw: async () =>
        PARALLEL /
        (await seconds(() =>
          xargs(
            Array.from({ length: PARALLEL }, () => join(raw, next())),
            cached,
          ),
        )),
      batch: async () =>
        BATCH /
        (await seconds(() => done(house.api.createVolumes({ body: { name: next(), image: 'base', count: BATCH } }, WAIT)))),
    },
    ROUNDS,
  );
  const [rate, rawRate, batchRate] = [medianOf(parallel.ours), medianOf(parallel.raw), medianOf(parallel.batch)];
  const first = await firstWrites(house, cached, raw);
  const row = (
    name: string,
    unit: string,
    ours: number,
    peer: number,
    better: 'more' | 'less',
    tool: string,
    reach: string,
  ): Row => ({ case: name, unit, ours, tool, peer, ratio: ratioOf(ours, peer, better), reach });
  return [
    row('one clone through the API, p50', 'ms', medianOf(ms), medianOf(rawMs), 'less', 'qemu-img create -b', 'raw + 15 ms'),
    row('one clone through the API, p95', 'ms', quantileOf(ms, 0.95), quantileOf(rawMs, 0.95), 'less', 'qemu-img create -b', ''),
    row(`clones, ${AT_ONCE} at once`, 'clones/s', rate, rawRate, 'more', 'xargs -P2 qemu-img create -b', '>= 0.8'),
    row(`clones, count ${BATCH}`, 'clones/s', batchRate, rawRate, 'more', 'xargs -P2 qemu-img create -b', '>= 3'),
    row('20,000 first writes of 4 KiB', 'IOPS', first.ours.iops, first.plain.iops, 'more', 'clone with default options', '>= 2'),
    row(
      'space they take',
      'MiB',
      first.ours.mib,
      first.plain.mib,
      'less',
      'clone with default options',
      '<= 0.15 x, so ratio >= 6.7',
    ),
  ];
}

/** Puts a file where an import from the store finds it; returns its path there. */
async function onStore(house: Cistern, file: string): Promise<string> {
  await execa('cp', ['--', file, join(house.dir('store'), 'incoming.qcow2')]);
  await stat(join(house.dir('store'), 'incoming.qcow2'));
  return 'incoming.qcow2';
}

async function inParallel(count: number, atOnce: number, work: () => Promise<void>): Promise<void> {
  let left = count;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (left-- > 0) await work();
    }),
  );
}

const xargs = (targets: string[], backing: string) =>
  execa('xargs', ['-P2', '-n1', 'qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', backing], {
    input: targets.join('\n'),
  });
