import { CisternError } from '../../../shared/errors.ts';
import { newId } from '../../../shared/id.ts';
import { orAborted } from '../../worker/or-aborted.ts';
import type { BackupStore } from '../driver.ts';
import { type Case, must } from './case.ts';
import { imageCases } from './images.ts';
import { objectCases } from './objects.ts';

/** No case takes longer, not even on a slow link: each moves some 10 MiB each way at most. */
const CASE_MS = 180_000;

/** Every case, in the order in which they are run. */
export const conformanceCases: readonly Case[] = [
  { name: 'can be reached, written and read', run: ({ store }) => store.check() },
  ...objectCases,
  ...imageCases,
];

export interface Outcome {
  name: string;
  ok: boolean;
  /** Why not; empty where it is. */
  detail: string;
  seconds: number;
}

/**
 * Runs the cases against a store, each in a folder of its own that is removed after it. Where the first one fails, the others are not
 * tried. Throws the signal's reason; what fails in a case is in its outcome. `folder`: for small files on the host's own disk.
 */
export async function runConformance(
  store: BackupStore,
  folder: string,
  signal: AbortSignal,
  progress: (done: number, total: number) => void = () => undefined,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const one of conformanceCases) {
    outcomes.push(await runCase(one, store, folder, signal));
    progress(outcomes.length, conformanceCases.length);
    if (!outcomes[0]!.ok) break;
  }
  return outcomes;
}

async function runCase({ name, run }: Case, whole: BackupStore, folder: string, signal: AbortSignal): Promise<Outcome> {
  const scratch = `cistern-validate-${newId()}`;
  const begun = performance.now();
  const late = AbortSignal.timeout(CASE_MS);
  const either = AbortSignal.any([signal, late]);
  const failures: unknown[] = [];
  const attempt = (work: () => Promise<void>): Promise<void> => work().catch((error: unknown) => void failures.push(error));
  await attempt(() => orAborted(run({ store: within(whole, scratch), folder, signal: either }), either));
  await attempt(async () => {
    await whole.remove(scratch);
    must((await whole.list(scratch)).length === 0, `something is left in ${scratch} after it was removed`);
  });
  signal.throwIfAborted();
  const detail = failures.map(error =>
    late.aborted && error === late.reason ? `no end within ${CASE_MS / 1000} s` : say(error),
  );
  return { name, ok: failures.length === 0, detail: detail.join('; '), seconds: (performance.now() - begun) / 1000 };
}

const say = (error: unknown): string => {
  const words = error instanceof Error ? error.message : String(error);
  return (error instanceof CisternError ? `${error.code}: ${words}` : words).slice(0, 1000);
};

/** A folder of a store as a store. Paths that lead out stay as they are: the store itself has to refuse them. */
function within(store: BackupStore, folder: string): BackupStore {
  const at = (path: string): string => (/^[^/.]/.test(path) ? `${folder}/${path}` : path);
  return {
    ...store,
    source: path => store.source(at(path)),
    sink: (path, size, partSize) => store.sink(at(path), size, partSize),
    read: (path, limit) => store.read(at(path), limit),
    write: (path, body) => store.write(at(path), body),
    list: path => store.list(at(path)),
    remove: path => store.remove(at(path)),
  };
}
