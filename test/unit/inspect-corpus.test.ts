import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compressionOf, decompress } from '../../agent/host/decompress.ts';
import { inspectImage, type Inspected } from '../../agent/host/inspect.ts';
import { CisternError } from '../../shared/errors.ts';
import { COMPRESSED, MAX_RATIO } from './corpus/compressed.ts';
import { HONEST } from './corpus/honest.ts';
import { crafted, qemuInfo, type Base, type CorpusImage } from './corpus/image.ts';
import { QCOW2 } from './corpus/qcow2.ts';
import { MADE, RAW } from './corpus/raw.ts';
import { VDI } from './corpus/vdi.ts';
import { VHDX } from './corpus/vhdx.ts';
import { VMDK } from './corpus/vmdk.ts';

const MAX = 64 * 2 ** 40;

describe('every image of the corpus, honest or hostile, is judged as it should be', () => {
  const bases = new Map<Base, Buffer>();
  const corpus: CorpusImage[] = [
    ...HONEST,
    ...crafted('qcow2', QCOW2, bases),
    ...crafted('vmdk', VMDK, bases),
    ...crafted('vhdx', VHDX, bases),
    ...crafted('vdi', VDI, bases),
    ...crafted('raw', RAW, bases),
    ...MADE,
    ...COMPRESSED,
  ];
  const judged: { kind: string; verdict: string }[] = [];
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cistern-corpus-'));
  });
  after(async () => {
    await rm(dir, { recursive: true, force: true });
    console.log(`\n${table(judged)}\n`);
  });

  for (const { kind, name, code, says, declared, make } of corpus) {
    it(`${kind} ${name}: ${code ?? 'accepted'}`, async () => {
      const packed = await make(dir);
      const verdict = await unpackAndInspect(packed, declared).then(
        found => ({ found, code: null }),
        (error: unknown) => error as CisternError,
      );
      judged.push({ kind, verdict: verdict.code ?? 'accepted' });
      if (verdict instanceof Error) {
        assert.ok(verdict instanceof CisternError, verdict);
        assert.equal(verdict.code, code, verdict.message);
        if (says) assert.match(verdict.message, says);
      } else {
        assert.equal(code, null, 'it was accepted');
        assert.equal(verdict.found.virtualSize, await qemuInfo(verdict.found.path, verdict.found.format));
      }
    });
  }

  /** As an import does it. */
  async function unpackAndInspect(packed: string, declared: CorpusImage['declared']): Promise<Inspected & { path: string }> {
    const compression = await compressionOf(packed);
    const path = compression === null ? packed : join(dir, 'unpacked');
    if (compression !== null) {
      await rm(path, { force: true });
      await decompress({ source: packed, compression, target: path, maxBytes: 2 ** 30, maxRatio: MAX_RATIO });
    }
    return { path, ...(await inspectImage(path, { declared, maxVirtualSize: MAX })) };
  }
});

/** How often each verdict was given on each kind of image. */
function table(judged: { kind: string; verdict: string }[]): string {
  const kinds = [...new Set(judged.map(({ kind }) => kind))];
  const verdicts = [...new Set(judged.map(({ verdict }) => verdict))].sort((a, b) => a.localeCompare(b)); // accepted comes first
  const count = (kind: string | null, verdict: string | null): string =>
    String(judged.filter(one => (kind ?? one.kind) === one.kind && (verdict ?? one.verdict) === one.verdict).length || '');
  const row = (name: string, cells: string[]): string => name.padEnd(24) + cells.map(cell => cell.padStart(7)).join('');
  return [
    row('', [...kinds, 'all']),
    ...verdicts.map(verdict =>
      row(
        verdict,
        [...kinds, null].map(kind => count(kind, verdict)),
      ),
    ),
    row(
      'all',
      [...kinds, null].map(kind => count(kind, null)),
    ),
  ].join('\n');
}
