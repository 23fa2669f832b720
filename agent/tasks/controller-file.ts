import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { writeDurable } from '../../shared/durable.ts';
import type { Logger } from '../../shared/log.ts';
import { checkedLine, readChecked } from './checked-line.ts';

/** Where this agent reports, and the token that lets it. */
export const ControllerAddress = agentRoutes.setController.body;
export type ControllerAddress = z.infer<typeof ControllerAddress>;

const fileOf = (stateDir: string): string => join(stateDir, 'controller');

/** What the last `PUT /v1/controller` said; undefined before the first one, or where the file is damaged (the controller says it again when it connects). */
export function readController(stateDir: string, log: Logger): ControllerAddress | undefined {
  const file = fileOf(stateDir);
  if (!existsSync(file)) return undefined;
  try {
    return ControllerAddress.parse(readChecked(readFileSync(file).subarray(0, -1)));
  } catch {
    // the reason could quote the token
    log.warn({ file }, 'the address of the controller cannot be read; nothing is reported until the controller connects again');
    return undefined;
  }
}

export const forgetController = (stateDir: string): void => rmSync(fileOf(stateDir), { force: true });

export const writeController = (stateDir: string, address: ControllerAddress): void =>
  writeDurable(fileOf(stateDir), checkedLine(address));
