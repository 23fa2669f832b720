import { z } from 'zod';
import { CisternError } from '../../shared/errors.ts';
import type { DriverFacts } from '../../shared/model.ts';
import type { PrimaryDriver } from './driver.ts';
import { local } from './local.ts';
import { nfs } from './nfs.ts';
import { rbd } from './rbd.ts';
import { sharedDir } from './shared-dir.ts';

/** Every kind of primary storage that this agent knows. */
export const primaryDrivers: readonly PrimaryDriver[] = [local, nfs, rbd, sharedDir].map(driver => driver as PrimaryDriver);

/** The driver of a type; DRIVER_UNKNOWN, naming those there are. */
export function findPrimaryDriver(type: string): PrimaryDriver {
  const found = primaryDrivers.find(driver => driver.type === type);
  if (found !== undefined) return found;
  throw new CisternError(
    'DRIVER_UNKNOWN',
    `primary storage type ${JSON.stringify(type)}: this agent knows ${primaryDrivers.map(d => d.type).join(', ')}`,
  );
}

/** What `GET /v1/facts` tells of them: the configuration as JSON Schema. */
export const primaryDriverFacts = (): DriverFacts[] =>
  primaryDrivers.map(({ type, title, shared, volumes, config }) => ({
    type,
    title,
    shared,
    volumes,
    config: z.toJSONSchema(config, { io: 'input' }),
  }));
