import { FINAL_STATES, type Operation } from '../../shared/model.ts';
import { type Api, done } from '../servers/cistern.ts';

/** One operation may take ten minutes on a slow disk. */
const LOOKS = 10;

/** Waits until an operation has ended; throws where that was not in success. */
export async function ended(api: Api, starting: Promise<Operation>): Promise<Operation> {
  let operation = await starting;
  for (let look = 0; look < LOOKS && !FINAL_STATES.includes(operation.state); look++)
    operation = await api.getOperation({ params: { ref: operation.id }, query: { wait: 60 } });
  return done(Promise.resolve(operation));
}
