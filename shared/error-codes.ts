import { HOSTS } from './error-codes/hosts.ts';
import { IMAGES } from './error-codes/images.ts';
import { REQUESTS } from './error-codes/requests.ts';
import { STORAGES } from './error-codes/storages.ts';

/**
 * Every error that controller, agent and CLI know, by its stable code. Codes are never renamed: scripts and alerts stand on them.
 * `detail` of a problem says what was tried, on what, and what came back; `action` here says what to do.
 */
export const ERRORS = { ...REQUESTS, ...HOSTS, ...STORAGES, ...IMAGES };

export type ErrorCode = keyof typeof ERRORS;
