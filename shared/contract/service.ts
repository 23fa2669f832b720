import { z } from 'zod';
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
