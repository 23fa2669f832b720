import { z } from 'zod';
import type { PoolRef } from '../../shared/commands/refs.ts';
import { CisternError } from '../../shared/errors.ts';
import type { PrimaryDriver } from '../primary/driver.ts';
import { findPrimaryDriver } from '../primary/registry.ts';

/** The driver of a pool, and the pool as it takes it. DRIVER_UNKNOWN, or POOL_CONFIG that names every wrong field. */
export function poolDriver(ref: PoolRef): { driver: PrimaryDriver; pool: { id: string; config: unknown } } {
  const driver = findPrimaryDriver(ref.type);
  const parsed = driver.config.safeParse(ref.config);
  if (parsed.success) return { driver, pool: { id: ref.id, config: parsed.data } };
  throw new CisternError('POOL_CONFIG', `the configuration of the ${ref.type} pool ${ref.id}:\n${z.prettifyError(parsed.error)}`);
}
