import { execa } from 'execa';
import type { Logger } from './log.ts';

/** Tells systemd how a `Type=notify` service is doing; does nothing where systemd did not start it. */
export interface Notifier {
  ready(status: string): Promise<void>;
  stopping(): Promise<void>;
}

/** Of one attempt, and how often READY is told: without it the unit is ended at its start. */
const TIMEOUT_MS = 10_000;
const READY_ATTEMPTS = 3;

/**
 * sd_notify(3) by the `systemd-notify` program, as Node has no datagram sockets for the file system. The unit needs
 * `NotifyAccess=all`: the message comes from a child of the service. With `WatchdogSec=` the watchdog is fed at half its time from
 * the event loop, so that a service whose loop hangs is restarted.
 */
export function createNotifier(log: Logger, env: NodeJS.ProcessEnv = process.env): Notifier {
  let watchdog: NodeJS.Timeout | undefined;
  /** Whether it was told. */
  const notify = async (...words: string[]): Promise<boolean> => {
    if (!env.NOTIFY_SOCKET) return true;
    try {
      await execa('systemd-notify', [`--pid=${process.pid}`, ...words], { env, timeout: TIMEOUT_MS, stdin: 'ignore' });
      return true;
    } catch (error) {
      log.warn({ reason: (error as Error).message }, 'systemd could not be notified');
      return false;
    }
  };
  return {
    async ready(status) {
      for (let attempt = 1; !(await notify('--ready', `--status=${status}`)) && attempt < READY_ATTEMPTS; attempt++);
      const micros = Number(env.WATCHDOG_USEC);
      const ours = env.WATCHDOG_PID === undefined || env.WATCHDOG_PID === String(process.pid);
      if (env.NOTIFY_SOCKET && micros > 0 && ours)
        watchdog ??= setInterval(() => void notify('WATCHDOG=1'), micros / 2000).unref();
    },
    async stopping() {
      clearInterval(watchdog);
      await notify('STOPPING=1');
    },
  };
}
