import { readFileSync } from 'node:fs';
import { InvalidArgumentError } from 'commander';
import { CisternError } from '../../shared/errors.ts';
import { expandHome } from './connection.ts';

/** Settings of a storage driver as they are typed. */
export type Settings = Record<string, unknown>;

const SECRET = /(password|passphrase|private_?key|secret|secret_?key|token)$/i;

/**
 * `key=value`; a value that is JSON of a number, true, false or an array is that, everything else is text. Collects into `before`.
 * Throws BAD_REQUEST for a secret, whose place is a file.
 */
export function parseSetting(text: string, before: Settings = {}): Settings {
  const [key, value] = split(text);
  if (SECRET.test(key)) {
    // not an InvalidArgumentError: commander would print the argument, secret and all
    throw new CisternError(
      'BAD_REQUEST',
      `--set ${key}=...: a ${key} on the command line shows in process lists and in the shell's history`,
      {
        action: `Put it into a file that only you can read and use --set-file ${key}=PATH.`,
      },
    );
  }
  return { ...before, [key]: typed(value) };
}

/**
 * `key=PATH`: the content of the file, for secrets and keys. A value of one line loses its trailing newline; one of several lines, such
 * as a private key, keeps it, because OpenSSH refuses a key without it.
 */
export function parseFileSetting(text: string, before: Settings = {}): Settings {
  const [key, path] = split(text);
  let content: string;
  try {
    content = readFileSync(expandHome(path, process.env), 'utf8');
  } catch (cause) {
    throw new InvalidArgumentError(`reading ${path}: ${(cause as Error).message}.`);
  }
  const line = content.replace(/\r?\n$/, '');
  return { ...before, [key]: line.includes('\n') ? content : line };
}

function split(text: string): [string, string] {
  const match = /^([A-Za-z][A-Za-z0-9_-]*)=([\s\S]*)$/.exec(text);
  if (!match) throw new InvalidArgumentError('a setting is KEY=VALUE.');
  return [match[1]!, match[2]!];
}

function typed(value: string): unknown {
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === 'number' || typeof parsed === 'boolean' || Array.isArray(parsed) ? parsed : value;
  } catch {
    return value;
  }
}
