/** The parts that are to move, shared by the threads of all lanes. */
import { COUNT, NEXT, STOP, WIDTH } from './thread-job.ts';
import { ATTEMPTS } from './retry.ts';

/** Seconds without a complaint of the server after which one lane more may run. */
const GROW_SECONDS = 10;

export interface Queue {
  todo: Int32Array;
  control: Int32Array;
  /** Puts parts back that a thread had claimed when it failed. */
  again(parts: readonly number[]): void;
  /** Whether a part waits to be claimed. */
  waiting(): boolean;
  stop(): void;
  /** How many lanes may run now. */
  width(): number;
  /** The server asked for a pause: half as many lanes, for some time. */
  narrow(): void;
}

export function makeQueue(numbers: readonly number[], lanes: number): Queue {
  // a lane that fails puts back what it had claimed, some 30 small parts at most; it gives up when it fails too often with none done
  const room = (numbers.length + lanes * ATTEMPTS) * 40;
  const todo = new Int32Array(new SharedArrayBuffer(4 * room));
  todo.set(numbers);
  const control = new Int32Array(new SharedArrayBuffer(16));
  control[COUNT] = numbers.length;
  control[WIDTH] = lanes;
  let calmSince = performance.now();
  return {
    todo,
    control,
    again: parts => {
      const count = Atomics.load(control, COUNT);
      todo.set(parts, count);
      Atomics.store(control, COUNT, count + parts.length);
    },
    waiting: () => Atomics.load(control, NEXT) < Atomics.load(control, COUNT),
    stop: () => void Atomics.store(control, STOP, 1),
    width: () => {
      const width = Atomics.load(control, WIDTH);
      if (width === lanes || performance.now() - calmSince < GROW_SECONDS * 1000) return width;
      calmSince = performance.now();
      Atomics.store(control, WIDTH, width + 1);
      return width + 1;
    },
    narrow: () => {
      calmSince = performance.now();
      Atomics.store(control, WIDTH, Math.max(1, Atomics.load(control, WIDTH) >> 1));
    },
  };
}
