import type { Caller } from '../shared/http/auth.ts';
import type { Logger } from '../shared/log.ts';
import type { ControllerConfig } from './config.ts';
import type { Authority } from './authority.ts';
import type { Database } from './db/database.ts';
import type { Events } from './events.ts';
import type { Fleet } from './fleet/fleet.ts';
import type { Metrics } from './metrics.ts';
import type { Recovery } from './recovery.ts';
import type { Secrets } from './secrets.ts';
import type { Tokens } from './tokens.ts';

/** What the parts of the controller share; made once in `main.ts`. */
export interface Services {
  config: ControllerConfig;
  log: Logger;
  db: Database;
  secrets: Secrets;
  tokens: Tokens;
  events: Events;
  fleet: Fleet;
  metrics: Metrics;
  recovery: Recovery;
  authority: Authority;
  /** Cancels an operation in the name of another one. */
  cancel: (id: string, caller: Pick<Caller, 'name' | 'role'>) => Promise<unknown>;
  /** Where agents reach this controller that did not join. */
  publicUrl: () => string;
  /** The same for those that did, and for people on other machines. */
  secureUrl: () => string;
}
