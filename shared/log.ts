import { pino, type Logger } from 'pino';

export type { Logger };

/** Bytes of log that wait where standard error takes none; what comes after is lost. */
const MOST_WAITING = 2 ** 20;

/** JSON lines on standard error, for journald or a file. Fields that may hold secrets never get here; the paths below are a second net. */
export function createLog(name: string, level: string): Logger {
  const out = pino.destination({ fd: 2, sync: true, maxLength: MOST_WAITING });
  // a disk that is full takes no log: lines are lost then, the service goes on
  out.on('error', () => undefined);
  return pino(
    {
      name,
      level,
      redact: {
        paths: ['*.token', '*.password', '*.privateKey', '*.passphrase', '*.authorization', 'config', '*.config'],
        censor: '[secret]',
      },
    },
    out,
  );
}
