import { z } from 'zod';
import { secret } from '../../shared/secret.ts';

const MONITOR = /^[A-Za-z0-9.:,/_[\] -]{1,1024}$/;
export const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$/;
const monitors = z.string().regex(MONITOR, 'must be addresses of monitors, as in mon_host of a ceph.conf');

/** How a pool of a cluster is reached: of a backup storage and of a primary storage alike. */
export const CephConfig = z.strictObject({
  monitors: z
    .union([monitors, z.array(monitors).min(1).max(32)])
    .transform(text => (Array.isArray(text) ? text.join(',') : text))
    .describe('addresses of the monitors: the text of mon_host, or a list'),
  pool: z.string().regex(NAME, 'must be the name of a pool').describe('existing pool'),
  user: z
    .string()
    .regex(/^(?!client\.)[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$/, 'must be a Ceph user without "client."')
    .describe('Ceph user, without "client."'),
  key: secret(
    z
      .string()
      .regex(/^[A-Za-z0-9+/]{16,256}={0,2}$/, 'must be a cephx key')
      .describe('cephx key of the user'),
  ),
  namespace: z.string().regex(NAME).optional().describe('existing RBD namespace of the pool'),
});
export type CephConfig = z.output<typeof CephConfig>;

/** `POOL` or `POOL/NAMESPACE`, as rbd and messages name it. */
export const poolOf = ({ pool, namespace }: CephConfig): string => (namespace === undefined ? pool : `${pool}/${namespace}`);

/**
 * The RADOS namespace of manifests and journals. One of their own, as listing them among the images' data would tell millions of names;
 * and objects of their own, as an image's metadata takes no manifest of many MiB.
 */
export const objectNamespace = ({ namespace }: CephConfig, what = 'cistern'): string =>
  namespace === undefined ? what : `${namespace}.${what}`;
