/** Programs of Ceph side by side: each takes a connection, and most of its time to make that. */
const WIDTH = 8;

/** `work` for each item, a few at a time. The first failure lets those end that were begun, and is thrown. */
export async function each<T, R>(items: readonly T[], work: (item: T, index: number) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const failures: unknown[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < items.length && failures.length === 0) {
      const i = next++;
      try {
        results[i] = await work(items[i]!, i);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(WIDTH, items.length) }, lane));
  if (failures.length > 0) throw failures[0];
  return results;
}
