import { CisternError } from '../../shared/errors.ts';

interface Ordered<Q, Row> {
  where(column: 'id', op: '>' | '<', value: string): Q;
  orderBy(column: 'id', direction: 'asc' | 'desc'): Q;
  limit(n: number): { execute(): Promise<Row[]> };
}

/** BAD_REQUEST for a cursor that this list cannot have returned: guessing what was meant would show things twice or never. */
export function checkCursor(cursor: string | undefined, form: RegExp): void {
  if (cursor !== undefined && !form.test(cursor))
    throw new CisternError('BAD_REQUEST', 'cursor: it is not one that this list returned');
}

/** One page of a query over things with ids, which sort by the time they were made. The cursor is the last id of the page before. */
export async function pageOf<Q, Row extends { id: string }>(
  query: Q & Ordered<Q, Row>,
  page: { limit: number; cursor?: string },
  direction: 'asc' | 'desc' = 'asc',
): Promise<{ rows: Row[]; next: string | null }> {
  checkCursor(page.cursor, /^[0-9a-f-]{36}$/);
  const from =
    page.cursor === undefined ? query : (query.where('id', direction === 'asc' ? '>' : '<', page.cursor) as Q & Ordered<Q, Row>);
  const rows = await (from.orderBy('id', direction) as Q & Ordered<Q, Row>).limit(page.limit + 1).execute();
  const shown = rows.slice(0, page.limit);
  return { rows: shown, next: rows.length > page.limit ? shown.at(-1)!.id : null };
}
