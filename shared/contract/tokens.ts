import { z } from 'zod';
import { Name, Role, Time, Token } from '../model.ts';
import { listOf, page, ref } from './lists.ts';
import { routes } from './route.ts';

export const tokenRoutes = routes({
  listTokens: {
    method: 'get',
    path: '/api/v1/tokens',
    role: 'reader',
    tag: 'tokens',
    summary: 'List tokens of the API, without what they open with',
    description: "The first token, of the controller's token file, is not among them.",
    query: page,
    status: 200,
    output: listOf(Token),
  },
  createToken: {
    method: 'post',
    path: '/api/v1/tokens',
    role: 'admin',
    tag: 'tokens',
    summary: 'Make a token of the API; the answer is the only place that ever shows it',
    body: z.strictObject({
      name: Name.describe('who or what will use it: operations and events are signed with it'),
      role: Role,
      expiresAt: Time.optional().describe('from then on it opens nothing; else until it is deleted'),
    }),
    inRecovery: true,
    status: 201,
    output: Token.extend({
      token: z.string().meta({ readOnly: true, description: 'to be sent as "Authorization: Bearer TOKEN"' }),
    }),
  },
  deleteToken: {
    method: 'delete',
    path: '/api/v1/tokens/:ref',
    role: 'admin',
    tag: 'tokens',
    summary: 'Delete a token: it opens nothing from now on, and what streams to its holder is cut',
    params: ref,
    inRecovery: true,
    status: 204,
  },
});
