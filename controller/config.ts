import { z } from 'zod';

/** Settings of the controller: `/etc/cistern/controller.json`, or CISTERN_CONTROLLER_* in the environment. */
export const ControllerConfig = z.strictObject({
  listen: z.string().default('127.0.0.1').describe('address to listen on: TLS for all, plain HTTP for this machine itself'),
  port: z.int().min(0).max(65535).default(7070).describe('0: any free port'),
  publicUrl: z
    .url()
    .optional()
    .describe('where agents reach the controller; else https://LISTEN:PORT; http for those on loopback that did not join'),
  certificateDays: z
    .number()
    .positive()
    .max(825)
    .default(90)
    .describe('how long certificates of hosts and controller last; they are renewed after a third of it'),
  stateDir: z.string().default('/var/lib/cistern-controller').describe('database, token and the key that seals stored secrets'),
  logLevel: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
  heartbeatSeconds: z
    .number()
    .min(0.2)
    .default(5)
    .describe('how often each agent is asked how it is; three misses make it disconnected'),
  taskRetrySeconds: z
    .number()
    .min(0)
    .default(120)
    .describe('how long a task waits for a host that went away before its operation fails'),
  trashHours: z.number().min(0).default(24).describe('how long deleted volumes stay in the trash'),
  physicalWarning: z
    .number()
    .min(0.1)
    .max(1)
    .default(0.85)
    .describe('an event says so once so much of a pool is physically used'),
  physicalThreshold: z.number().min(0.1).max(1).default(0.95).describe('no new work once so much of a pool is physically used'),
  cacheHighWatermark: z
    .number()
    .min(0)
    .max(1)
    .default(0.85)
    .describe('above this physical use the least recently used cached images go'),
  cacheLowWatermark: z.number().min(0).max(1).default(0.75).describe('until use is below this'),
  operationDays: z.number().min(1).default(30).describe('how long ended operations and events are kept'),
  schedules: z
    .strictObject({
      capacity: z.string().default('*/5 * * * *'),
      reconnect: z.string().default('*/15 * * * * *'),
      trash: z.string().default('17 * * * *'),
      cache: z.string().default('*/10 * * * *'),
      prune: z.string().default('41 3 * * *'),
      backup: z.string().default('11 4 * * *'),
      scrub: z.string().default('23 2 * * 0'),
      uploads: z.string().default('37 4 * * *'),
    })
    .prefault({})
    .describe('cron expressions of the regular work'),
});
export type ControllerConfig = z.output<typeof ControllerConfig>;
