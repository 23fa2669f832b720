import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { descendants } from '../../servers/processes.ts';
import { type Moment, sayMoment, someMoment, watchFor } from './moment.ts';
import type { Random } from './random.ts';
import type { Stage } from './stage.ts';

const TARGETS = { worker: 7, agent: 6, controller: 5, 'controller and agent': 3, 'all three': 3 };
type Target = keyof typeof TARGETS;

/** One crash: which processes are killed at once, when, and for how long what was killed stays away, in milliseconds. */
export interface Blow {
  target: Target;
  host: string;
  moment: Moment;
  away: { agent: number; controller: number };
}

export function someBlow(random: Random, hosts: readonly string[]): Blow {
  const target = random.weigh(TARGETS);
  const shortly = (): number => (random.chance(0.3) ? random.int(50, 900) : 0);
  // longer than a task waits for its host
  const agent = target !== 'worker' && random.chance(0.02) ? 6000 : shortly();
  return { target, host: random.pick(hosts), moment: someMoment(random), away: { agent, controller: shortly() } };
}

export const sayBlow = ({ target, host, moment, away }: Blow): string =>
  `kill ${target}${target === 'controller' ? '' : ` of ${host}`} ${sayMoment(moment)}${
    Math.max(away.agent, away.controller) > 0 ? `, away for ${away.agent}/${away.controller} ms` : ''
  }`;

/** Waits for the moment, kills, and starts again what was killed. Returns the number of processes that were killed by us. */
export async function strike(stage: Stage, blow: Blow, over: AbortSignal): Promise<number> {
  const { target, host, away } = blow;
  await watchFor(stage, host, blow.moment, over);
  const agent = stage.service(host);
  const { controller } = stage.house.cistern;
  const workers = target === 'worker' || target === 'all three' ? await workersOf(agent.pid) : [];
  // a worker that is not there yet cannot be killed: then its agent is the one
  const hitsAgent = target !== 'controller' && (target !== 'worker' || workers.length === 0);
  const hitsController = target !== 'worker' && target !== 'agent';
  for (const pid of workers) kill(pid);
  const ends: Promise<void>[] = [];
  const back = async (service: typeof agent, ms: number): Promise<void> => {
    await service.kill();
    await delay(ms);
    await service.start();
  };
  if (hitsAgent) ends.push(back(agent, away.agent));
  if (hitsController) ends.push(back(controller, away.controller));
  await Promise.all(ends);
  return workers.length + ends.length;
}

/** The worker processes of an agent. */
export async function workersOf(agentPid: number): Promise<number[]> {
  return (await descendants(agentPid)).filter(pid => argv(pid).some(word => word.endsWith('agent/worker/main.ts')));
}

export function argv(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return []; // it has ended meanwhile
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
