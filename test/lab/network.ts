/** The network of the lab, in the network namespace that this process is in: a bridge, and a tap for each host. */
import { execa } from 'execa';

/** This side of the bridge. */
export const OUTSIDE = '10.77.0.1';
const BRIDGE = 'lab0';

export const tapOf = (number: number): string => `lab-tap${number}`;
export const addressOf = (number: number): string => `10.77.0.${number}`;

const ip = (...words: string[]) => execa('ip', words, { timeout: 10_000 });

/** Removed when disposed of. */
export async function makeNetwork(numbers: readonly number[]): Promise<AsyncDisposable> {
  await ip('link', 'set', 'lo', 'up');
  await ip('link', 'add', BRIDGE, 'type', 'bridge');
  const taps: string[] = [];
  const remove = async (): Promise<void> => {
    for (const tap of taps) await ip('link', 'del', tap);
    await ip('link', 'del', BRIDGE);
  };
  try {
    await ip('addr', 'add', `${OUTSIDE}/24`, 'dev', BRIDGE);
    await ip('link', 'set', BRIDGE, 'up');
    for (const tap of numbers.map(tapOf)) {
      await ip('tuntap', 'add', 'dev', tap, 'mode', 'tap');
      taps.push(tap);
      await ip('link', 'set', tap, 'master', BRIDGE, 'up');
    }
  } catch (error) {
    await remove();
    throw error;
  }
  return { [Symbol.asyncDispose]: remove };
}
