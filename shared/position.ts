import { z } from 'zod';
import { Id } from './id.ts';

/**
 * Where a controller's database is: the run of the controller that works on it, and the number of its last commit. Agents keep the
 * newest they have seen, so that a database that was put back to an old copy is noticed, and a controller that another one follows.
 */
export const Position = z.strictObject({ run: Id, sequence: z.int().min(0) });
export type Position = z.infer<typeof Position>;

/** The header with which a controller says its position in each request to an agent. */
export const POSITION_HEADER = 'cistern-position';

export const formatPosition = ({ run, sequence }: Position): string => `${run}/${sequence}`;

/** The position in a header; undefined where there is none, as where a person asks. */
export function parsePosition(header: string | string[] | undefined): Position | undefined {
  const [run, sequence] = String(header ?? '').split('/');
  const parsed = Position.safeParse({ run, sequence: Number(sequence) });
  return parsed.success ? parsed.data : undefined;
}
