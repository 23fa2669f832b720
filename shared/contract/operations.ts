import { z } from 'zod';
import { Event, Operation, OperationState } from '../model.ts';
import { ReportBatch } from '../task.ts';
import { listOf, page, ref } from './lists.ts';
import { routes } from './route.ts';

export const operationRoutes = routes({
  listOperations: {
    method: 'get',
    path: '/api/v1/operations',
    role: 'reader',
    tag: 'operations',
    summary: 'List operations, newest first',
    query: page.extend({
      state: OperationState.optional(),
      kind: z.string().optional(),
      resource: z.string().optional().describe('id of a thing it works on'),
    }),
    status: 200,
    output: listOf(Operation),
  },
  getOperation: {
    method: 'get',
    path: '/api/v1/operations/:ref',
    role: 'reader',
    tag: 'operations',
    summary: 'Show an operation',
    description: '`wait` holds the answer until the operation has ended, for so many seconds at most.',
    params: ref,
    query: z.strictObject({ wait: z.coerce.number().min(0).max(60).optional() }),
    status: 200,
    output: Operation,
  },
  cancelOperation: {
    method: 'post',
    path: '/api/v1/operations/:ref/cancel',
    role: 'operator',
    tag: 'operations',
    summary: 'Cancel an operation: what it has begun is undone',
    params: ref,
    status: 202,
    output: Operation,
  },
  retryOperation: {
    method: 'post',
    path: '/api/v1/operations/:ref/retry',
    role: 'operator',
    tag: 'operations',
    summary: 'Start a failed or cancelled operation again with the same input',
    params: ref,
    starts: true,
    status: 202,
    output: Operation,
  },
  operationEvents: {
    method: 'get',
    path: '/api/v1/operations/:ref/events',
    role: 'reader',
    tag: 'operations',
    summary: 'Follow an operation as server-sent events: `operation` with the whole operation at each change, until it has ended',
    params: ref,
    status: 200,
    outputStream: 'text/event-stream',
  },
  listEvents: {
    method: 'get',
    path: '/api/v1/events',
    role: 'reader',
    tag: 'events',
    summary: 'List events, oldest first',
    description: 'With `Accept: text/event-stream` the answer goes on with events as they happen; `Last-Event-ID` resumes.',
    query: page.extend({ after: z.coerce.number().int().min(0).default(0).describe('only events with a greater seq') }),
    status: 200,
    output: listOf(Event),
  },
});

/** Where agents report; authenticated by the token that the controller gave to the host. */
export const reportRoutes = routes({
  postReports: {
    method: 'post',
    path: '/agent/v1/reports',
    role: 'host',
    tag: 'agents',
    summary: 'Take a batch of task reports',
    body: ReportBatch,
    status: 200,
    output: z.object({ acked: z.int() }),
  },
});

/** How hosts get their certificates. A join is let in by the token in it, once; later ones by the certificate before. */
export const joinRoutes = routes({
  join: {
    method: 'post',
    path: '/agent/v1/join',
    role: 'anyone',
    tag: 'agents',
    summary: 'Join as the host that a token was made for',
    body: z.strictObject({
      token: z.string().min(16).max(256),
      csr: z.string().max(8192).describe('PKCS #10 in PEM; its key alone counts'),
      port: z.int().min(1).max(65535).describe('where the agent will listen'),
    }),
    status: 200,
    output: z.object({ hostId: z.string(), certificate: z.string() }),
  },
  renewCertificate: {
    method: 'post',
    path: '/agent/v1/certificate',
    role: 'host',
    tag: 'agents',
    summary: 'Certify a new key of this host',
    body: z.strictObject({ csr: z.string().max(8192) }),
    status: 200,
    output: z.object({ certificate: z.string() }),
  },
});
