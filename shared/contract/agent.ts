import { z } from 'zod';
import { AnyCommandMessage } from '../commands/index.ts';
import { Facts, Id } from '../model.ts';
import { Position } from '../position.ts';
import { Paces, TaskReport } from '../task.ts';
import { routes } from './route.ts';

const task = z.object({ id: Id });

/** The HTTP interface of an agent. */
export const agentRoutes = routes({
  createTask: {
    method: 'post',
    path: '/v1/tasks',
    role: 'controller',
    tag: 'tasks',
    summary: 'Start a task',
    description: 'The controller chooses the id; the same id sent twice returns the report of the first one.',
    body: z.strictObject({ id: Id, command: AnyCommandMessage, paces: Paces.optional() }),
    status: 202,
    output: TaskReport,
  },
  listTasks: {
    method: 'get',
    path: '/v1/tasks',
    role: 'controller',
    tag: 'tasks',
    summary: 'List tasks that run or ended lately',
    status: 200,
    output: z.object({ items: z.array(TaskReport) }),
  },
  getTask: {
    method: 'get',
    path: '/v1/tasks/:id',
    role: 'controller',
    tag: 'tasks',
    summary: 'Show a task',
    params: task,
    status: 200,
    output: TaskReport,
  },
  cancelTask: {
    method: 'delete',
    path: '/v1/tasks/:id',
    role: 'controller',
    tag: 'tasks',
    summary: 'Cancel a task',
    params: task,
    status: 202,
    output: TaskReport,
  },
  putTaskPaces: {
    method: 'put',
    path: '/v1/tasks/:id/paces',
    role: 'controller',
    tag: 'tasks',
    summary: 'Say how fast a task may move bytes to and from backup storages, also while it does',
    params: task,
    body: z.strictObject({ paces: Paces }),
    status: 200,
    output: TaskReport,
  },
  putTaskInput: {
    method: 'put',
    path: '/v1/tasks/:id/input',
    role: 'controller',
    tag: 'tasks',
    summary: 'Send the bytes that a task with an upload source waits for',
    params: task,
    bodyStream: true,
    status: 200,
    output: z.object({ received: z.int() }),
  },
  facts: {
    method: 'get',
    path: '/v1/facts',
    role: 'controller',
    tag: 'agent',
    summary: 'Tools, drivers, kernel and capacity of the host',
    status: 200,
    output: Facts,
  },
  setController: {
    method: 'put',
    path: '/v1/controller',
    role: 'controller',
    tag: 'agent',
    summary: 'Tell the agent where to report',
    description:
      "Only who holds the agent's token can say this. The agent keeps it over restarts. With `position` it also serves this run of the controller from now on, and no other.",
    body: z.strictObject({
      url: z.url({ protocol: /^https?$/ }),
      hostId: Id,
      token: z.string().min(16).max(256).optional().describe('none for a host that joined: its certificate says who it is'),
      position: Position.optional(),
    }),
    status: 200,
    output: z.object({ hostId: Id }),
  },
  getController: {
    method: 'get',
    path: '/v1/controller',
    tag: 'agent',
    role: 'controller',
    summary: 'Which run of which controller the agent serves, and the newest that it has seen of it',
    status: 200,
    output: z.object({ hostId: Id.nullable(), position: Position.nullable(), epoch: z.int().describe('run of the agent') }),
  },
  healthz: {
    method: 'get',
    path: '/healthz',
    role: 'anyone',
    tag: 'agent',
    summary: 'Whether the agent serves',
    status: 200,
    output: z.object({ status: z.literal('ok') }),
  },
  metrics: {
    method: 'get',
    path: '/metrics',
    role: 'anyone',
    tag: 'agent',
    summary: 'Prometheus metrics',
    description: 'Open to all who can reach the agent, as exporters are: it names pools and counts, never settings.',
    status: 200,
    outputStream: 'text/plain',
  },
});
