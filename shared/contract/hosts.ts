import { z } from 'zod';
import { Cluster, Host, Name, Operation, State, Status, Time } from '../model.ts';
import { secret } from '../secret.ts';
import { listOf, page, ref } from './lists.ts';
import { routes } from './route.ts';

const hostUrl = z
  .url({ protocol: /^https?$/, normalize: true }) // one spelling, so that an agent is not taken for two
  .refine(url => !/[@?#]/.test(url), 'must hold no login, query or fragment');

/** What a host needs to join. */
const Invitation = z.object({
  name: Name,
  url: z.url().describe('of the controller'),
  token: z.string().meta({ readOnly: true, description: 'works once; shown only here' }),
  fingerprint: z.string().describe("SHA-256 of the certificate of the controller's authority"),
  expiresAt: Time,
});

export const hostRoutes = routes({
  listHosts: {
    method: 'get',
    path: '/api/v1/hosts',
    role: 'reader',
    tag: 'hosts',
    summary: 'List hosts',
    query: page.extend({ cluster: z.string().optional(), status: Status.optional(), state: State.optional() }),
    status: 200,
    output: listOf(Host),
  },
  getHost: {
    method: 'get',
    path: '/api/v1/hosts/:ref',
    role: 'reader',
    tag: 'hosts',
    summary: 'Show a host',
    params: ref,
    status: 200,
    output: Host,
  },
  addHost: {
    method: 'post',
    path: '/api/v1/hosts',
    role: 'admin',
    tag: 'hosts',
    summary: 'Add a host by the address and token of its agent',
    body: z.strictObject({
      name: Name,
      url: hostUrl.describe('base URL of the agent'),
      token: secret(z.string().min(16).max(256).describe('bearer token of the agent; stored encrypted')),
      cluster: Name.default('default').describe('made when there is none of that name'),
    }),
    starts: true,
    status: 202,
    output: Operation,
  },
  inviteHost: {
    method: 'post',
    path: '/api/v1/hosts/invitations',
    role: 'admin',
    tag: 'hosts',
    summary: 'Let a new host join: make a token for it that works once',
    description: 'A new invitation of the same name takes the place of an older one.',
    body: z.strictObject({
      name: Name,
      url: hostUrl.optional().describe('base URL of the agent; else the address that it joins from'),
      cluster: Name.default('default').describe('made when there is none of that name'),
    }),
    status: 201,
    output: Invitation,
  },
  rejoinHost: {
    method: 'post',
    path: '/api/v1/hosts/:ref/invitation',
    role: 'admin',
    tag: 'hosts',
    summary: 'Let a known host join anew: after it was installed again, or to go over to TLS; its older certificates end then',
    params: ref,
    status: 201,
    output: Invitation,
  },
  updateHost: {
    method: 'patch',
    path: '/api/v1/hosts/:ref',
    role: 'admin',
    tag: 'hosts',
    summary: 'Rename a host, or enable it, disable it or put it into maintenance',
    params: ref,
    body: z.strictObject({ name: Name.optional(), state: State.optional() }),
    status: 200,
    output: Host,
  },
  reconnectHost: {
    method: 'post',
    path: '/api/v1/hosts/:ref/reconnect',
    role: 'admin',
    tag: 'hosts',
    summary: 'Connect to the agent again and read its facts',
    params: ref,
    starts: true,
    inRecovery: true,
    status: 202,
    output: Operation,
  },
  removeHost: {
    method: 'delete',
    path: '/api/v1/hosts/:ref',
    role: 'admin',
    tag: 'hosts',
    summary: 'Remove a host; refused while volumes lie on its local pools',
    params: ref,
    starts: true,
    status: 202,
    output: Operation,
  },
});

export const clusterRoutes = routes({
  listClusters: {
    method: 'get',
    path: '/api/v1/clusters',
    role: 'reader',
    tag: 'clusters',
    summary: 'List clusters',
    query: page,
    status: 200,
    output: listOf(Cluster),
  },
  getCluster: {
    method: 'get',
    path: '/api/v1/clusters/:ref',
    role: 'reader',
    tag: 'clusters',
    summary: 'Show a cluster',
    params: ref,
    status: 200,
    output: Cluster,
  },
  createCluster: {
    method: 'post',
    path: '/api/v1/clusters',
    role: 'admin',
    tag: 'clusters',
    summary: 'Create a cluster',
    body: z.strictObject({ name: Name }),
    status: 201,
    output: Cluster,
  },
  deleteCluster: {
    method: 'delete',
    path: '/api/v1/clusters/:ref',
    role: 'admin',
    tag: 'clusters',
    summary: 'Delete a cluster that has no host and no storage',
    params: ref,
    status: 204,
  },
});
