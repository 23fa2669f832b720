import { z } from 'zod';

/** How every list is paged: pass `next` of one page as `cursor` of the following one. */
export const page = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).default(100).describe('how many at most'),
  cursor: z.string().max(200).optional().describe('`next` of the page before'),
});

export const listOf = <T extends z.ZodType>(item: T) => z.object({ items: z.array(item), next: z.string().nullable() });

/** A thing is named in paths by its id or by its name. */
export const ref = z.object({ ref: z.string().min(1).max(128).describe('id or name') });
