import { z } from 'zod';
import { secret } from '../../../shared/secret.ts';

const HOST_KEY = /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]+={0,2}( [^\r\n]*)?$/;

export const SftpConfig = z
  .strictObject({
    host: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9.:_-]{0,254}$|^::[0-9a-fA-F:.]*$/, 'must be a host name or an address')
      .describe('name or address of the server'),
    port: z.int().min(1).max(65535).default(22).describe('port of its SSH service'),
    user: z
      .string()
      .regex(/^[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}$/, 'must be a login name')
      .describe('login name on the server'),
    path: z
      .string()
      .max(1024)
      .regex(/^\/[^\0\r\n]*$/, 'must be an absolute path')
      .describe('existing folder on the server, absolute as the SFTP session sees it'),
    privateKey: secret(z.string().max(65536).describe('private key of the user, as text')).optional(),
    passphrase: secret(
      z
        .string()
        .max(1024)
        .regex(/^[^\0\r\n]*$/)
        .describe('passphrase of the private key'),
    ).optional(),
    password: secret(
      z
        .string()
        .max(1024)
        .regex(/^[^\0\r\n]+$/)
        .describe('password of the user, where no key is given'),
    ).optional(),
    hostKey: z
      .string()
      .regex(HOST_KEY, 'must be "TYPE BASE64", as in the .pub file of the server\'s host key')
      .describe('public host key of the server, such as "ssh-ed25519 AAAA...": another key is refused'),
    tool: z.literal('scp').optional().describe('scp: files are moved by this program as a whole, not part by part and resumed'),
  })
  .refine(config => (config.privateKey === undefined) !== (config.password === undefined), {
    message: 'give either privateKey or password',
    path: ['privateKey'],
  });
export type SftpConfig = z.output<typeof SftpConfig>;

/** The pinned key's type and its base64, and the signature algorithms that a key of this type may be offered with. */
export function pinned(config: SftpConfig): {
  type: string;
  key: string;
  algorithms: ('ssh-ed25519' | 'rsa-sha2-512' | 'rsa-sha2-256')[];
} {
  const [type, key] = config.hostKey.split(' ') as [string, string];
  const algorithms = type === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256'] : [type];
  return { type, key, algorithms: algorithms as ReturnType<typeof pinned>['algorithms'] };
}

/** `user@host:port`, for messages. */
export const address = (config: SftpConfig): string => `${config.user}@${config.host}:${config.port}`;
