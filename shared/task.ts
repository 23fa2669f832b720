import { z } from 'zod';
import { Problem } from './errors.ts';
import { Id } from './id.ts';

export const TaskState = z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']);
export type TaskState = z.infer<typeof TaskState>;

export const Progress = z
  .object({
    stage: z.string().describe('what is being done now, such as download, convert, verify'),
    done: z.number().min(0),
    total: z.number().min(0).nullable().describe('null while unknown'),
    unit: z.enum(['bytes', 'items', 'percent']),
    rate: z.number().min(0).nullable().describe('units per second'),
    eta: z.number().min(0).nullable().describe('seconds left'),
  })
  .meta({ id: 'Progress' });
export type Progress = z.infer<typeof Progress>;

/** How many bytes a second a task may move to and from each backup storage, by its id; null: as fast as it goes. */
export const Paces = z.record(Id, z.int().min(1).nullable());
export type Paces = z.infer<typeof Paces>;

/** What an agent says of one task. `output` is the command's output schema once the state is succeeded. */
export const TaskReport = z
  .object({
    id: Id,
    kind: z.string(),
    state: TaskState,
    progress: Progress.nullable(),
    output: z.unknown().optional(),
    error: Problem.nullable(),
    createdAt: z.iso.datetime(),
    finishedAt: z.iso.datetime().nullable(),
  })
  .meta({ id: 'TaskReport' });
export type TaskReport = z.infer<typeof TaskReport>;

export const isFinal = (state: TaskState): boolean => state === 'succeeded' || state === 'failed' || state === 'cancelled';

/**
 * A batch of reports. `seq` grows by one with each batch of one agent run (`epoch`, which grows with each run): the controller takes
 * those of the run alone that answers at the host's address, drops a batch that is not newer than the last one it took, and
 * acknowledges the number it has.
 */
export const ReportBatch = z.strictObject({
  hostId: Id,
  epoch: z.int(),
  seq: z.int().min(1),
  reports: z.array(TaskReport).max(1000),
});
export type ReportBatch = z.infer<typeof ReportBatch>;
