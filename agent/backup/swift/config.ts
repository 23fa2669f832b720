import { z } from 'zod';
import { secret } from '../../../shared/secret.ts';

const LINE = /^[^\0\r\n]*$/;
const line = (): z.ZodString => z.string().min(1).max(1024).regex(LINE, 'must be one line');

/** Segments of what goes before our names in the container; none may be one that a URL takes for another path. */
const isPrefix = (prefix: string): boolean =>
  prefix === '' || prefix.split('/').every(segment => segment !== '' && segment !== '.' && segment !== '..');

export const SwiftConfig = z
  .strictObject({
    authUrl: z
      .url({ protocol: /^https?$/ })
      .max(2048)
      .refine(url => !new URL(url).username && !new URL(url).password, 'must not hold a user or a password')
      .describe('where tokens come from, such as "https://keystone.example:5000/v3" or "https://swift.example/auth/v1.0"'),
    authVersion: z
      .union([z.literal(1), z.literal(3)])
      .default(3)
      .describe('3 for Keystone with a password, 1 for the older way of Swift itself (TempAuth) and of Ceph'),
    user: line().describe('name of the user; with authVersion 1 as the server wants it, such as "account:user"'),
    key: secret(line().describe('password or key of the user')),
    userDomain: line().default('Default').describe('name of the domain of the user (authVersion 3)'),
    project: line().optional().describe('name of the project that owns the container (authVersion 3)'),
    projectDomain: line().default('Default').describe('name of the domain of the project (authVersion 3)'),
    region: line().optional().describe('region whose storage is used, where the catalogue has several (authVersion 3)'),
    endpoint: z
      .url({ protocol: /^https?$/ })
      .max(2048)
      .optional()
      .describe('URL of the account, where the one that the server names is not the right one'),
    container: z
      .string()
      .min(1)
      .max(256)
      .regex(/^[^/\0\r\n]+$/, 'must be a name without "/"')
      .refine(name => name !== '.' && name !== '..', 'must be a name')
      .describe('existing container'),
    prefix: z
      .string()
      .max(512)
      .regex(/^[^\0\r\n]*$/)
      .refine(isPrefix, 'must be names with "/" between them')
      .default('')
      .describe('folder in the container, where others use the container too'),
    ca: z.string().max(65536).optional().describe("certificate of the private authority that signed the server's, as PEM text"),
  })
  .refine(config => config.authVersion === 1 || config.project !== undefined, {
    message: 'authVersion 3 needs a project',
    path: ['project'],
  });
export type SwiftConfig = z.output<typeof SwiftConfig>;
