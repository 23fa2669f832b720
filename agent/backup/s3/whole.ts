/** A sink for parts that gives way to an object that comes whole, by a program or as a copy inside the service. */
import { CisternError } from '../../../shared/errors.ts';
import type { Sink } from '../../transfer/ends.ts';

interface Whole {
  sink: Sink;
  /** Before an object of `size` bytes comes whole: what the sink for parts had begun goes. */
  begin(size: number): Promise<void>;
}

export function giveWay(sink: Sink, object: { name: string; sizeOf: () => Promise<number>; remove: () => Promise<void> }): Whole {
  let whole: { size: number } | undefined;
  const abort = async (): Promise<void> => {
    await sink.abort(); // its upload, and any that was begun for the whole
    if (whole) await object.remove();
  };
  return {
    begin: async size => {
      whole = { size };
      await sink.abort();
    },
    sink: {
      ...sink,
      publish: async parts => {
        if (!whole) return sink.publish(parts);
        const size = await object.sizeOf();
        await sink.abort(); // attempts that had failed
        if (size === whole.size) return;
        await object.remove();
        throw new CisternError('DIGEST_MISMATCH', `writing ${object.name}: it has ${size} bytes, and ${whole.size} were sent`);
      },
      abort,
      park: () => (whole ? abort() : sink.park!()),
    },
  };
}
