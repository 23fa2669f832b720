import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { CisternError } from './errors.ts';

/**
 * Settings of a service: a JSON file, then environment variables `PREFIX_KEY` (nested keys joined by `_`) over it, then `overrides`.
 * Throws BAD_REQUEST that names every wrong field, so that a service with a bad setting does not start.
 */
export function loadConfig<T extends z.ZodObject>(
  schema: T,
  prefix: string,
  file: string | undefined,
  overrides: Record<string, unknown> = {},
): z.output<T> {
  const fromFile = file === undefined ? {} : readJson(file);
  const merged: Record<string, unknown> = { ...fromFile };
  for (const key of Object.keys(schema.shape)) {
    const value = process.env[`${prefix}_${key.replace(/[A-Z]/g, c => `_${c}`).toUpperCase()}`];
    if (value !== undefined) merged[key] = /^[\d[{]|^(true|false|null)$/.test(value) ? parseOr(value) : value;
  }
  for (const [key, value] of Object.entries(overrides)) if (value !== undefined) merged[key] = value;
  const parsed = schema.safeParse(merged);
  if (parsed.success) return parsed.data;
  throw new CisternError(
    'BAD_REQUEST',
    `the configuration${file ? ` in ${file}` : ''} is not valid:\n${z.prettifyError(parsed.error)}`,
  );
}

const parseOr = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};

function readJson(file: string): Record<string, unknown> {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  } catch (cause) {
    throw new CisternError('BAD_REQUEST', `reading the configuration file ${file}: ${(cause as Error).message}`, { cause });
  }
}
