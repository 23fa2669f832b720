import { z } from 'zod';

/** One command that an agent carries out: its kind on the wire, what goes in and what comes out. */
export interface Command<K extends string = string, I extends z.ZodType = z.ZodType, O extends z.ZodType = z.ZodType> {
  kind: K;
  summary: string;
  input: I;
  output: O;
  /** It changes nothing: also a controller that the agent does not serve may ask for it. */
  reads?: true;
}

export const command = <const K extends string, I extends z.ZodType, O extends z.ZodType>(
  c: Command<K, I, O>,
): Command<K, I, O> => c;
