import { pino, type Logger } from 'pino';

export type { Logger };

/** JSON lines on standard error, for journald or a file. Fields that may hold secrets never get here; the paths below are a second net. */
export const createLog = (name: string, level: string): Logger =>
  pino(
    {
      name,
      level,
      redact: {
        paths: ['*.token', '*.password', '*.privateKey', '*.passphrase', '*.authorization', 'config', '*.config'],
        censor: '[secret]',
      },
    },
    pino.destination({ fd: 2, sync: true }),
  );
