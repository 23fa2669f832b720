import { chmodSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { lockFolder } from '../shared/lock.ts';
import { readOrCreateToken } from '../shared/http/auth.ts';
import type { Logger } from '../shared/log.ts';
import type { AgentConfig } from './config.ts';
import { endOrphans } from './worker/folders.ts';

export interface State extends Disposable {
  token: string;
  spoolDir: string;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * The agent's own folder (0700), for it alone: locked (IN_USE where another agent has it), with the token that callers must show,
 * made at the first start. What workers of an earlier run still do is ended, and spool folders of its tasks are removed: nobody will
 * go on with them.
 */
export async function openState(config: AgentConfig, log: Logger): Promise<State> {
  const { stateDir } = config;
  const spoolDir = config.spoolDir ?? join(stateDir, 'spool');
  using locks = new DisposableStack();
  locks.use(lockFolder(stateDir, 'an agent'));
  chmodSync(stateDir, 0o700);
  await endOrphans(stateDir, log);
  mkdirSync(spoolDir, { recursive: true, mode: 0o700 });
  if (config.spoolDir !== undefined) locks.use(lockFolder(spoolDir, 'an agent'));
  for (const name of readdirSync(spoolDir)) if (UUID.test(name)) rmSync(join(spoolDir, name), { recursive: true, force: true });
  const file = join(stateDir, 'token');
  const { token, created } = readOrCreateToken(file);
  if (created) log.info({ tokenFile: file }, 'a bearer token was made; whoever may read this file may use the agent');
  const held = locks.move();
  return { token, spoolDir, [Symbol.dispose]: () => held.dispose() };
}
