/** The conformance suite as the agent runs it against any store, also one of an operator or of a plug-in. */
import type { BackupStore } from '../driver.ts';

/** What a case works with. Everything that it makes in `store` lies in a folder that is removed after it. */
export interface Ground {
  store: BackupStore;
  /** A folder of the host's own disk for small files; cleared by whoever made it. */
  folder: string;
  signal: AbortSignal;
}

export interface Case {
  /** What the store does: "takes an image and gives it back". */
  name: string;
  /** Throws where it does not. */
  run(ground: Ground): Promise<void>;
}

/** Bytes of a part: the smallest that every kind of storage takes (S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html). */
export const PART = 5 * 2 ** 20;

export function must(condition: boolean, words: string): asserts condition {
  if (!condition) throw new Error(words);
}

/** Runs `work`, which must fail with an error of this code. */
export async function mustFail(code: string, tried: string, work: () => Promise<unknown>): Promise<void> {
  let came = 'it succeeded';
  try {
    await work();
  } catch (error) {
    const found = (error as { code?: unknown }).code;
    if (found === code) return;
    came = `${String(found)}: ${(error as Error).message}`;
  }
  throw new Error(`${tried} must fail with ${code}: ${came}`);
}
