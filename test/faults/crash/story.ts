import type { CallOptions } from '../../../shared/http/client.ts';
import type { Operation } from '../../../shared/model.ts';
import type { Random } from './random.ts';
import type { Stage } from './stage.ts';

/** A piece of work that is begun once blows may fall. `options` carries the key that makes it safe to say again. */
export interface Act {
  start(options: CallOptions): Promise<Operation>;
  /** What a client does besides while the operation runs, such as sending bytes; called again when it fails. */
  meanwhile?(operation: Operation, signal: AbortSignal): Promise<void>;
}

/** One workflow of the controller in one way of using it. */
export interface Story {
  title: string;
  /** Two stories that change the same thing do not meet in one seed. */
  needs?: 'spare' | 'golden' | 'trash';
  /** Brings about, in peace, what the work needs; `name` is free for what it makes. */
  prepare(stage: Stage, name: string, random: Random): Promise<Act>;
}
