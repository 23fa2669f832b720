import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { judgeImage, type Inspected } from '../../agent/host/inspect.ts';
import { CisternError } from '../../shared/errors.ts';
import { imageOf, mutate, type Mutant } from './fuzz/mutant.ts';
import { qemuIn } from './fuzz/qemu.ts';
import { randomOf } from './fuzz/random.ts';
import { makeSeeds, type Seed } from './fuzz/seeds.ts';

const COUNT = 200_000;
/** Of those that pass, so many that differ in what was touched are shown to qemu-img. */
const SHOWN = 1000;
const MAX_CPU_MS = 100;
const MAX = 64 * 2 ** 40;

describe('the header judge stands what is done to honest headers', function () {
  this.timeout(900_000);
  // FUZZ_SEED=seed FUZZ_INDEX=index make one mutant again
  const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const from = Number(process.env['FUZZ_INDEX'] ?? 0);
  const to = process.env['FUZZ_INDEX'] === undefined ? COUNT : from + 1;
  const { stackTraceLimit } = Error;
  let dir: string;
  let seeds: Seed[];
  const accepted = new Map<string, { index: number; mutant: Mutant; found: Inspected }>();

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cistern-fuzz-'));
    seeds = await makeSeeds(dir);
  });
  afterEach(() => void (Error.stackTraceLimit = stackTraceLimit));
  after(() => rm(dir, { recursive: true, force: true }));

  it(`${to - from} mutants: each is accepted or refused by an IMAGE code within ${MAX_CPU_MS} ms of CPU`, async () => {
    const verdicts = new Map<string, number>();
    // half of the time went there; FUZZ_INDEX shows the stack
    if (to - from > 1) Error.stackTraceLimit = 0;
    let worst = { ms: 0, index: 0 };
    for (const made of seeds)
      await judgeImage(imageOf({ seed: made, edits: [], size: made.bytes.length, touched: [] }), made.base, {
        maxVirtualSize: MAX,
      });
    for (let index = from; index < to; index++) {
      const mutant = mutate(seeds, randomOf(seed, index));
      const start = process.threadCpuUsage();
      const verdict = await judgeImage(imageOf(mutant), 'it', {
        declared: index % 2 ? mutant.seed.format : null,
        maxVirtualSize: MAX,
      }).catch((error: unknown) => error);
      const { user, system } = process.threadCpuUsage(start);
      const ms = (user + system) / 1000;
      if (ms > worst.ms) worst = { ms, index };
      if (verdict instanceof Error) {
        const isRefusal = verdict instanceof CisternError && verdict.code.startsWith('IMAGE_');
        assert.ok(isRefusal, `FUZZ_SEED=${seed} FUZZ_INDEX=${index}: ${verdict.stack}`);
        verdicts.set(verdict.code, (verdicts.get(verdict.code) ?? 0) + 1);
      } else {
        verdicts.set('accepted', (verdicts.get('accepted') ?? 0) + 1);
        const alike = `${mutant.seed.base}: ${mutant.touched.sort().join(', ')}`;
        if (!accepted.has(alike)) accepted.set(alike, { index, mutant, found: verdict as Inspected });
      }
    }
    const lines = [...verdicts].sort(([, a], [, b]) => b - a).map(([verdict, count]) => `${verdict.padEnd(24)}${count}`);
    console.log(
      `FUZZ_SEED=${seed}: ${to - from} mutants, worst ${worst.ms.toFixed(1)} ms of CPU (FUZZ_INDEX=${worst.index})\n${lines.join('\n')}`,
    );
    assert.ok(worst.ms <= MAX_CPU_MS, `FUZZ_SEED=${seed} FUZZ_INDEX=${worst.index} took ${worst.ms} ms`);
  });

  it('and qemu-img info follows none of the accepted ones outside of its file, nor sees another disk', async () => {
    // few changes first: those that were changed in many ways are more, and say less
    const shown = [...accepted.values()].sort((a, b) => a.mutant.touched.length - b.mutant.touched.length).slice(0, SHOWN);
    let opened = 0;
    const lane = async (name: string): Promise<void> => {
      await mkdir(join(dir, name));
      const qemu = qemuIn(join(dir, name));
      for (let one = shown.pop(); one; one = shown.pop()) {
        const said = await qemu(one.mutant, one.found.format);
        if (!said) continue;
        opened++;
        const what = `FUZZ_SEED=${seed} FUZZ_INDEX=${one.index} (${one.mutant.seed.base}: ${one.mutant.touched.join(', ')})`;
        assert.deepEqual(said.follows, [], what);
        assert.equal(said.virtualSize, one.found.virtualSize, what);
      }
    };
    const all = shown.length;
    await Promise.all(['one', 'two'].map(lane));
    console.log(
      `${all} of ${accepted.size} unlike accepted mutants were shown to qemu-img info: it opened ${opened}, and followed none`,
    );
    if (to - from === COUNT) assert.ok(opened > SHOWN / 4, `only ${opened} were opened`);
  });
});
