/**
 * `npm start`: a controller and an agent on this machine, in one process, for trying cistern and for single hosts without systemd.
 * State lies in CISTERN_STATE, else $XDG_STATE_HOME/cistern. The only place of the controller that knows the agent.
 */
import { mkdirSync } from 'node:fs';
import { homedir, hostname } from 'node:os';
import { join } from 'node:path';
import { AgentConfig } from '../agent/config.ts';
import { startAgent } from '../agent/main.ts';
import { loadConfig } from '../shared/config.ts';
import { controllerRoutes } from '../shared/contract/controller.ts';
import { fromProblem, toProblem } from '../shared/errors.ts';
import { createClient } from '../shared/http/client.ts';
import { createLog } from '../shared/log.ts';
import { ControllerConfig } from './config.ts';
import { startController } from './main.ts';

async function main(): Promise<void> {
  const state = process.env.CISTERN_STATE ?? join(process.env.XDG_STATE_HOME ?? join(homedir(), '.local/state'), 'cistern');
  const stateOf = (service: string) => join(state, service);
  const controllerConfig = loadConfig(ControllerConfig, 'CISTERN_CONTROLLER', undefined, {
    stateDir: process.env.CISTERN_CONTROLLER_STATE_DIR ?? stateOf('controller'),
  });
  const agentConfig = loadConfig(AgentConfig, 'CISTERN_AGENT', undefined, {
    stateDir: process.env.CISTERN_AGENT_STATE_DIR ?? stateOf('agent'),
    mountDir: process.env.CISTERN_AGENT_MOUNT_DIR ?? join(state, 'mnt'),
  });
  // places for the first commands that are printed below
  const folders = { pool: join(state, 'pool'), store: join(state, 'store') };
  for (const folder of Object.values(folders)) mkdirSync(folder, { recursive: true });
  await using stack = new AsyncDisposableStack();
  const controller = stack.adopt(
    await startController(controllerConfig, createLog('cistern-controller', process.env.CISTERN_CONTROLLER_LOG_LEVEL ?? 'warn')),
    c => c.stop(),
  );
  const agent = stack.adopt(
    await startAgent(agentConfig, createLog('cistern-agent', process.env.CISTERN_AGENT_LOG_LEVEL ?? 'warn')),
    a => a.stop(),
  );

  const api = createClient(controllerRoutes, {
    baseUrl: controller.url,
    token: controller.token,
    unreachable: 'CONTROLLER_UNREACHABLE',
  });
  const { items } = await api.listHosts();
  const name =
    hostname()
      .replace(/[^A-Za-z0-9._-]/g, '-')
      .slice(0, 63) || 'this-host';
  if (!items.some(host => host.url === agent.url)) {
    const body = { name, url: agent.url, token: agent.token };
    const added = await api.addHost({ body }, { headers: { Prefer: 'wait=20' } });
    if (added.error) throw fromProblem(added.error);
  }
  api.close();
  process.stdout.write(`cistern runs on this machine.

  API            ${controller.url}        (to read: ${controller.url}/docs)
  Agent          ${agent.url}        (this machine, added as host ${name})
  State          ${state}

In another terminal, in this folder:

  export CISTERN_URL=${controller.url} CISTERN_TOKEN_FILE=${join(controllerConfig.stateDir, 'token')}
  npx cistern status
  npx cistern primary-storage add pool --type local --set path=${folders.pool}
  npx cistern backup-storage add store --type dir --set path=${folders.store}
  npx cistern image import debian --url https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2
  npx cistern volume create vm --image debian --count 3

Ctrl-C stops it; everything is kept for the next start.
`);
  await new Promise<void>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
  process.stdout.write('\nStopping.\n');
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    const { code, detail, action } = toProblem(error);
    process.stderr.write(`cistern: ${code}: ${detail}\n${action}\n`);
    process.exit(1);
  },
);
