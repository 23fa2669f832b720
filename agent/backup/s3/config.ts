import { z } from 'zod';
import { secret } from '../../../shared/secret.ts';

const isEndpoint = (text: string): boolean => {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, pathname, search, hash } = new URL(text);
  return /^https?:$/.test(protocol) && username + password + search + hash === '' && pathname === '/';
};
/** Segments as object keys may have them; no empty ones, and none that a proxy could take for another folder. */
const isPrefix = (text: string): boolean =>
  text === '' || text.split('/').every(segment => segment !== '' && segment !== '.' && segment !== '..');

export const S3Config = z
  .strictObject({
    endpoint: z
      .string()
      .max(1024)
      .refine(isEndpoint, 'must be http:// or https:// with a host and no path')
      .optional()
      .describe('URL of the service, such as "https://s3.example.org"; Amazon\'s own where it is left out'),
    region: z
      .string()
      .regex(/^[a-z0-9-]{1,64}$/, 'must be a region, such as eu-central-1')
      .default('us-east-1')
      .describe('region that requests are signed for'),
    bucket: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$/, 'must be the name of a bucket')
      .describe('existing bucket'),
    prefix: z
      .string()
      .max(512)
      .regex(/^\P{Cc}*$/u, 'must not hold control characters')
      .refine(isPrefix, 'must have no empty segment, "." or ".."')
      .default('')
      .describe('what the names of all objects begin with, without a slash at the end'),
    accessKey: z
      .string()
      .max(256)
      .regex(/^[\x21-\x7e]+$/, 'must be an access key')
      .describe('access key id'),
    secretKey: secret(z.string().min(1).max(1024).describe('secret access key')),
    pathStyle: z
      .boolean()
      .optional()
      .describe('whether the bucket stands in the path of URLs, not in the host name; by default where an endpoint is given'),
    storageClass: z
      .string()
      .regex(/^[A-Z0-9_-]{1,64}$/, 'must be a storage class, such as STANDARD_IA')
      .optional()
      .describe("storage class of new objects; the bucket's own where it is left out"),
    sse: z.literal('AES256').optional().describe('AES256: asks the service to encrypt what it stores by keys of its own'),
    tool: z
      .literal('s3cmd')
      .optional()
      .describe('s3cmd: files are moved by this program as a whole, not part by part and resumed'),
    ca: z
      .string()
      .max(262_144)
      .regex(/^\s*-----BEGIN CERTIFICATE-----[^]*-----END CERTIFICATE-----\s*$/, 'must be certificates as PEM text')
      .optional()
      .describe('certificates (PEM) of the authority that signed that of an https endpoint, where hosts do not know it'),
  })
  .refine(({ tool, prefix }) => tool === undefined || !/[*?]/.test(prefix), {
    message: 'must hold no * or ? together with tool=s3cmd, which takes them for patterns',
    path: ['prefix'],
  });
export type S3Config = z.output<typeof S3Config>;

/** Where the bucket is: `host` with port as in the Host header, `path` in front of keys (`/bucket` or empty). */
export interface BucketUrl {
  endpoint: URL;
  pathStyle: boolean;
  host: string;
  path: string;
}

export function bucketUrl(config: S3Config): BucketUrl {
  const endpoint = new URL(config.endpoint ?? `https://s3.${config.region}.amazonaws.com`);
  const pathStyle = config.pathStyle ?? config.endpoint !== undefined;
  const host = pathStyle ? endpoint.host : `${config.bucket}.${endpoint.host}`;
  return { endpoint, pathStyle, host, path: pathStyle ? `/${config.bucket}` : '' };
}
