const turns = new Map<string, Promise<void>>();

/** Runs pieces of work on the same thing one after another, in the order in which they were asked for. */
export async function inTurn<T>(thing: string, work: () => Promise<T>): Promise<T> {
  const before = turns.get(thing);
  const { promise, resolve } = Promise.withResolvers<void>();
  turns.set(thing, promise);
  try {
    await before;
    return await work();
  } finally {
    resolve();
    if (turns.get(thing) === promise) turns.delete(thing);
  }
}
