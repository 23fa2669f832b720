import { randomBytes } from 'node:crypto';
import type { StoreRef } from '../../shared/commands/refs.ts';
import { CisternError } from '../../shared/errors.ts';
import type { BackupStore } from '../backup/driver.ts';
import { throwIfAborted } from '../host/run.ts';
import type { TaskContext } from './handler.ts';

/**
 * The id of one of `others` that is the same place as `store`, whose id is `id`, by whatever way it is reached: what is written to one is read from the other.
 * Null where none is; of one that is away nothing can be told.
 */
export async function samePlace(
  store: BackupStore,
  id: string,
  others: readonly StoreRef[],
  ctx: TaskContext,
): Promise<string | null> {
  if (others.length === 0) return null;
  // always of one name: what a crash leaves goes when the command is sent again
  const folder = `probe-${id}`;
  const body = randomBytes(32);
  try {
    await store.write(`${folder}/place`, body);
    for (const ref of others) {
      throwIfAborted(ctx.signal);
      if ((await readFrom(ref, `${folder}/place`, body.length, ctx))?.equals(body)) return ref.id;
    }
    return null;
  } finally {
    await store.remove(folder);
  }
}

async function readFrom(ref: StoreRef, path: string, size: number, ctx: TaskContext): Promise<Buffer | undefined> {
  try {
    return await (await ctx.store(ref)).read(path, size);
  } catch (error) {
    if (!(error instanceof CisternError)) throw error;
    return undefined;
  }
}
