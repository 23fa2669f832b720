import { z } from 'zod';
import { Operation, Time } from '../model.ts';
import { routes } from './route.ts';

export const serviceRoutes = routes({
  healthz: {
    method: 'get',
    path: '/healthz',
    role: 'anyone',
    tag: 'service',
    summary: 'Whether the controller serves',
    status: 200,
    output: z.object({ status: z.literal('ok'), version: z.string() }),
  },
  getController: {
    method: 'get',
    path: '/api/v1/controller',
    tag: 'service',
    role: 'reader',
    summary: 'Show the controller: its version, and whether its database must be recovered',
    status: 200,
    output: z.object({
      version: z.string(),
      recovery: z
        .object({ since: Time, reason: z.string() })
        .nullable()
        .describe('set where hosts have seen a later state of the database: no work is done until it is resumed'),
    }),
  },
  resumeController: {
    method: 'post',
    path: '/api/v1/controller/resume',
    tag: 'service',
    role: 'admin',
    summary: 'Recover a database that was put back to an old copy, and work again',
    description:
      'Ends the operations that it shows as under way, and brings rows in line with what lies on the storages; removes nothing there.',
    starts: true,
    inRecovery: true,
    status: 202,
    output: Operation,
  },
  metrics: {
    method: 'get',
    path: '/metrics',
    role: 'reader',
    tag: 'service',
    summary: 'Prometheus metrics',
    status: 200,
    outputStream: 'text/plain',
  },
  discovery: {
    method: 'get',
    path: '/sd/agents',
    role: 'reader',
    tag: 'service',
    summary: 'Agents as Prometheus http_sd targets',
    status: 200,
    output: z.array(z.object({ targets: z.array(z.string()), labels: z.record(z.string(), z.string()) })),
  },
  openapi: {
    method: 'get',
    path: '/openapi.json',
    role: 'anyone',
    tag: 'service',
    summary: 'This API as OpenAPI 3.1',
    status: 200,
    outputStream: 'application/json',
  },
  docs: {
    method: 'get',
    path: '/docs',
    role: 'anyone',
    tag: 'service',
    summary: 'This API as a page to read',
    status: 200,
    outputStream: 'text/html',
  },
});
