import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { ERRORS } from '../errors.ts';

const FILE = join(import.meta.dirname, '..', 'ERRORS.md');

/** The table of errors as a document to read: what `shared/ERRORS.md` must hold. */
export async function errorsDocument(): Promise<string> {
  const rows = Object.entries(ERRORS).map(
    ([code, kind]) => `| \`${code}\` | ${kind.status} | ${kind.retryable ? 'yes' : 'no'} | ${kind.title} | ${kind.action} |`,
  );
  const text = [
    '# Errors',
    'Every error of controller, agent and CLI has one of these codes. Codes are never renamed. HTTP answers carry them as `application/problem+json`',
    '(RFC 9457) with `code`, `detail` (what was tried, on what, and what came back), `action` (what to do) and `retryable`.',
    'This file is written by `npm run docs:errors` from `shared/error-codes/`.\n',
    '| Code | HTTP status | Worth a retry as it is | What happened | What to do |',
    '|---|---|---|---|---|',
    ...rows,
  ].join('\n');
  return format(text, { ...(await resolveConfig(FILE)), parser: 'markdown' });
}

if (import.meta.main) writeFileSync(FILE, await errorsDocument());
