import { createInterface } from 'node:readline';
import { CisternError } from '../../shared/errors.ts';
import type { Operation } from '../../shared/model.ts';
import type { Progress } from '../../shared/task.ts';
import type { Call } from './command.ts';
import { createProgress, progressOf } from './progress.ts';
import { isFinal, watchOperation } from './watch.ts';

export interface FollowOptions {
  /** Progress that is known here better than at the controller, such as of an upload; undefined: take the controller's. */
  progress?: () => Progress | undefined;
  /** true while the operation lives on this process (an upload): leaving it would break it, so Ctrl-C cancels instead. */
  bound?: () => boolean;
}

/**
 * Follows an operation until it has ended and shows its progress. Ctrl-C asks on a terminal whether to cancel it; elsewhere, and at
 * a second Ctrl-C, it stops following. Returns the operation as last seen: not final means that following was given up.
 */
export async function followOperation(call: Call, first: Operation, options: FollowOptions = {}): Promise<Operation> {
  using view = createProgress(call.io, first.kind);
  const leave = new AbortController();
  const ended = new AbortController();
  let latest = first;
  const asking = { now: false };
  const show = (): void => {
    // no bar is drawn over a question
    if (!asking.now && !leave.signal.aborted) view.update(options.progress?.() ?? progressOf(latest));
  };
  // what this process knows better changes between the controller's reports
  const ticker = options.progress ? setInterval(show, 250) : undefined;
  const off = watchInterrupts(call, first, { view, asking, leave, ended: ended.signal, bound: () => options.bound?.() ?? false });
  try {
    show();
    if (isFinal(first)) return first;
    for await (const operation of watchOperation(call, first.id, leave.signal)) {
      latest = operation;
      show();
    }
  } catch (error) {
    if (!leave.signal.aborted) throw error;
  } finally {
    off();
    clearInterval(ticker);
    ended.abort();
  }
  return latest;
}

interface Interrupts {
  view: { pause(): void };
  asking: { now: boolean };
  leave: AbortController;
  ended: AbortSignal;
  bound: () => boolean;
}

function watchInterrupts(call: Call, { id, kind }: Operation, { view, asking, leave, ended, bound }: Interrupts): () => void {
  let times = 0;
  const cancel = async (): Promise<void> => {
    call.out.note(`Cancelling ${kind} ${id} ...`);
    await call.client.cancelOperation({ params: { ref: id } }).catch((error: unknown) => {
      // it may have ended in this very moment: then the end says it
      if (!(error instanceof CisternError) || error.code !== 'WRONG_STATE') throw error;
    });
  };
  const onInterrupt = async (): Promise<void> => {
    times += 1;
    view.pause();
    const terminal = call.io.stdin.isTTY === true && call.io.stderr.isTTY === true;
    if (times > 1) return leave.abort();
    if (!terminal) return bound() ? cancel() : leave.abort();
    asking.now = true;
    const answer = await question(call, `Cancel operation ${id} (${kind})? [y/N] `, ended);
    asking.now = false;
    if (answer === 'yes') return cancel();
    if (answer === 'no' && bound()) times = 0;
    else if (answer !== 'ended') leave.abort();
  };
  return call.io.onInterrupt(() => {
    onInterrupt().catch((error: unknown) => {
      call.out.note(`Cancelling failed: ${error instanceof Error ? error.message : String(error)}`);
      leave.abort();
    });
  });
}

type Answer = 'yes' | 'no' | 'interrupted' | 'ended';

/** Asks on the terminal; ends without an answer when the operation does. */
function question(call: Call, text: string, ended: AbortSignal): Promise<Answer> {
  const lines = createInterface({ input: call.io.stdin, output: call.io.stderr, terminal: true });
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const onEnd = (): void => resolve('ended');
  ended.addEventListener('abort', onEnd, { once: true });
  lines.on('SIGINT', () => resolve('interrupted'));
  lines.on('close', () => resolve('no'));
  lines.question(text, answer => resolve(/^\s*y(es)?\s*$/i.test(answer) ? 'yes' : 'no'));
  return promise.finally(() => {
    ended.removeEventListener('abort', onEnd);
    lines.removeAllListeners('close');
    lines.close();
    call.io.stderr.write('\n');
  });
}
