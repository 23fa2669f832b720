/** Drivers of others: packages or files that the agent's configuration names. */
import { isAbsolute } from 'node:path';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { CisternError } from '../../shared/errors.ts';
import { secret } from '../../shared/secret.ts';
import { fileSink, fileSource } from '../transfer/file-end.ts';
import type { BackupDriver } from './driver.ts';
import { segmentsOf } from './paths.ts';

export type { Sink, Source } from '../transfer/ends.ts';
export type { BackupDriver, BackupStore } from './driver.ts';

/** What a plug-in is given, so that it needs nothing of cistern but the types: settings are zod schemas, errors are CisternErrors. */
export interface PlugInTools {
  z: typeof z;
  /** Marks a setting as secret. */
  secret: typeof secret;
  CisternError: typeof CisternError;
  /** The segments of an object's path; BAD_REQUEST for one that leads out of the root. */
  segmentsOf: typeof segmentsOf;
  /** Local files as ends of transfers. */
  fileSource: typeof fileSource;
  fileSink: typeof fileSink;
}

/** What a plug-in exports as its default. */
export type PlugIn = (tools: PlugInTools) => BackupDriver;

const Shape = z.object({
  type: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/, 'must be lower-case letters, digits and hyphens'),
  title: z.string().min(1).max(200),
  shared: z.boolean(),
  config: z.custom(value => value instanceof z.ZodType, 'must be a zod schema made with the given z'),
  connect: z.custom(value => typeof value === 'function', 'must be a function'),
});

/** The drivers of these packages or absolute paths. DRIVER_INVALID names the one that cannot be used, and why. */
export async function loadPlugIns(names: readonly string[], taken: readonly string[]): Promise<BackupDriver[]> {
  const drivers: BackupDriver[] = [];
  for (const name of names) {
    const driver = await load(name);
    if ([...taken, ...drivers.map(one => one.type)].includes(driver.type))
      throw invalid(name, `there is a driver ${driver.type} already`);
    drivers.push(driver);
  }
  return drivers;
}

async function load(name: string): Promise<BackupDriver> {
  let driver: unknown;
  try {
    const module = (await import(isAbsolute(name) ? pathToFileURL(name).href : name)) as { default?: unknown };
    if (typeof module.default !== 'function') throw new Error('its default export is not a function that makes a driver');
    driver = (module.default as PlugIn)({ z, secret, CisternError, segmentsOf, fileSource, fileSink });
  } catch (error) {
    throw invalid(name, (error as Error).message);
  }
  const shape = Shape.safeParse(driver);
  if (!shape.success) throw invalid(name, `what it makes is no driver: ${z.prettifyError(shape.error)}`);
  return driver as BackupDriver;
}

const invalid = (name: string, why: string): CisternError =>
  new CisternError('DRIVER_INVALID', `loading the driver ${name}: ${why}`);
