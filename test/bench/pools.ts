/** One linked clone through the API on each kind of pool that works on a single machine, beside what the bare tool takes there. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { cephTool, poolNamespace, tellsRoom } from '../conformance/primary-rbd-target.ts';
import { startCeph } from '../servers/ceph.ts';
import { type Cistern, done, startCistern, WAIT } from '../servers/cistern.ts';
import { openDisk } from '../servers/disk.ts';
import { ended } from './ended.ts';
import { interleave, medianOf, ratioOf, type Row } from './row.ts';

const CLONES = 40;
const WARM = 5;
const SIZE = 256 * 2 ** 20;
const REACH = 'raw + 25 ms';

interface Kind {
  name: string;
  type: string;
  config: Record<string, unknown>;
  tool: string;
  /** The bare tool makes one more clone. */
  bare(name: string): Promise<unknown>;
}

export async function bench(): Promise<Row[]> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.adopt(await mkdtemp(join(tmpdir(), 'cistern-bench-')), path => rm(path, { recursive: true, force: true }));
  const house = stack.use(await startCistern(folder));
  const base = join(house.dir('store'), 'base.qcow2');
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '--', base, String(SIZE)]);
  await execa('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 7 0 64M', '--', base]);
  await done(house.api.addBackupStorage({ body: { name: 'store', type: 'dir', config: { path: house.dir('store') } } }, WAIT));
  const source = { type: 'object', backupStorage: 'store', path: 'base.qcow2' } as const;
  await ended(house.api, house.api.importImage({ body: { name: 'base', source } }, WAIT));
  const rows: Row[] = [];
  for (const kind of [await local(house, base), await sharedDir(stack, base), await rbd(stack)])
    rows.push(await measure(house, kind));
  return rows;
}

async function measure({ api }: Cistern, { name, type, config, tool, bare }: Kind): Promise<Row> {
  await done(api.addPrimaryStorage({ body: { name, type, config, overcommit: 1000 } }, WAIT));
  await ended(api, api.addToCache({ body: { image: 'base', primaryStorage: name } }, WAIT));
  let n = 0;
  const ms = (work: () => Promise<unknown>) => async (): Promise<number> => {
    const began = performance.now();
    await work();
    return performance.now() - began;
  };
  const runs = {
    ours: ms(() => done(api.createVolumes({ body: { name: `${name}-${++n}`, image: 'base', primaryStorage: name } }, WAIT))),
    bare: ms(() => bare(`bare-${++n}`)),
  };
  for (let i = 0; i < WARM; i++) for (const run of Object.values(runs)) await run();
  const { ours, bare: peers } = await interleave(runs, CLONES);
  const [mine, peer] = [medianOf(ours), medianOf(peers)];
  return {
    case: `one clone on ${name}, p50`,
    unit: 'ms',
    ours: mine,
    tool,
    peer,
    ratio: ratioOf(mine, peer, 'less'),
    reach: REACH,
  };
}

const create = (folder: string, cached: string) => (name: string) =>
  execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', cached, '--', join(folder, name)], { stdin: 'ignore' });

async function local(house: Cistern, base: string): Promise<Kind> {
  const [path, raw] = [house.dir('pool'), house.dir('raw')];
  return { name: 'local', type: 'local', config: { path }, tool: 'qemu-img create -b', bare: create(raw, base) };
}

async function sharedDir(stack: AsyncDisposableStack, base: string): Promise<Kind> {
  const disk = stack.use(await openDisk('ext4', { size: 1024 }));
  const cached = join(disk.path, 'base.qcow2');
  const raw = join(disk.path, 'raw');
  await execa('mkdir', ['--', raw, join(disk.path, 'pool')]);
  await execa('cp', ['--', base, cached]);
  const config = { path: join(disk.path, 'pool') };
  return { name: 'shared-dir', type: 'shared-dir', config, tool: 'qemu-img create -b, same mount', bare: create(raw, cached) };
}

async function rbd(stack: AsyncDisposableStack): Promise<Kind> {
  const ceph = await startCeph({ rgw: false, mgr: true });
  stack.defer(() => ceph.stop());
  await tellsRoom(ceph);
  const [config, { namespace }] = [await poolNamespace(ceph), await poolNamespace(ceph)];
  const spec = (name: string): string => `rbd/${namespace}/${name}`;
  await cephTool(ceph, 'rbd', ['create', '--size', `${SIZE}B`, '--image-feature', 'layering', spec('base')]);
  await cephTool(ceph, 'rbd', ['snap', 'create', '--no-progress', `${spec('base')}@base`]);
  await cephTool(ceph, 'rbd', ['snap', 'protect', `${spec('base')}@base`]);
  const bare = (name: string) => cephTool(ceph, 'rbd', ['clone', `${spec('base')}@base`, spec(name)]);
  return { name: 'rbd', type: 'rbd', config, tool: 'rbd clone', bare };
}
