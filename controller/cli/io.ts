/** What the command line talks to; tests pass streams and an environment of their own. */
export interface Io {
  stdout: NodeJS.WritableStream & { isTTY?: boolean; columns?: number };
  stderr: NodeJS.WritableStream & { isTTY?: boolean; columns?: number };
  stdin: NodeJS.ReadableStream & { isTTY?: boolean };
  env: NodeJS.ProcessEnv;
  /** Calls `listener` at each Ctrl-C until what it returns is called. */
  onInterrupt(listener: () => void): () => void;
}

/** The streams, environment and signals of this process. */
export const processIo = (): Io => ({
  stdout: process.stdout,
  stderr: process.stderr,
  stdin: process.stdin,
  env: process.env,
  onInterrupt: listener => {
    process.on('SIGINT', listener);
    return () => process.off('SIGINT', listener);
  },
});

/** Text from elsewhere as one line: control characters, which could steer the terminal, become spaces. */
export const oneLine = (text: string): string => text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ').trim();

/** The same for text that may have several lines. */
export const plainText = (text: string): string =>
  text
    .split('\n')
    .map(line => line.replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ').trimEnd())
    .join('\n');

/** Whether colour may be used on `stream`: a terminal, and NO_COLOR not set (https://no-color.org). */
export const hasColour = (stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean =>
  stream.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb';
