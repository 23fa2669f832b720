/** Finds secrets that tests planted: in bytes, however they are written, and in what processes show of themselves. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { descendants } from '../servers/processes.ts';

/** How often running processes are looked at, in milliseconds. */
const SAMPLE_MS = 5;

/** The forms in which a text may lie in a file: plain, base64 at each of its three offsets, hex, URL-encoded, and inside JSON. */
export function formsOf(secret: string): string[] {
  const forms = [secret, Buffer.from(secret).toString('hex'), encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)];
  for (let offset = 0; offset < 3; offset++) {
    const text = Buffer.from('\0'.repeat(offset) + secret).toString('base64');
    // what the bytes before and behind it have a part in is left out
    const inner = text.slice(offset === 0 ? 0 : 4, -4);
    forms.push(inner, inner.replaceAll('+', '-').replaceAll('/', '_'));
  }
  return [...new Set(forms)];
}

/** Which canaries are found in `bytes`, and around what: empty is what is wanted. */
export function canariesIn(where: string, bytes: Buffer | string, canaries: Record<string, string>): string[] {
  const all = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes);
  return Object.entries(canaries).flatMap(([name, secret]) => {
    const form = formsOf(secret).find(one => all.includes(one));
    if (form === undefined) return [];
    const at = all.indexOf(form);
    return [`${where} holds ${name}: ...${all.subarray(Math.max(0, at - 100), at).toString('latin1')}`];
  });
}

/** Every file below `folder` but those that `mayHold` names: relative paths. */
export const canariesBelow = (folder: string, canaries: Record<string, string>, mayHold: RegExp): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && !mayHold.test(`${entry.parentPath}/${entry.name}`))
    .flatMap(entry => {
      const path = `${entry.parentPath}/${entry.name}`;
      return canariesIn(path, readFileSync(path), canaries);
    });

/** Looks at command line and environment of what `pids()` and all below them run, until disposed of. */
export function watchProcesses(pids: () => number[], canaries: Record<string, string>) {
  const stop = new AbortController();
  const found = new Set<string>();
  const programs = new Set<string>();
  const look = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      for (const root of pids())
        for (const pid of [root, ...(await descendants(root))])
          for (const file of ['cmdline', 'environ']) {
            const bytes = read(`/proc/${pid}/${file}`);
            if (file === 'cmdline') programs.add(bytes.toString().split('\0')[0]!.split('/').at(-1)!);
            for (const leak of canariesIn(`/proc/PID/${file} of ${bytes.toString().slice(0, 80)}`, bytes, canaries))
              found.add(leak);
          }
      await delay(SAMPLE_MS);
    }
  };
  const looking = look();
  return {
    found: () => [...found],
    /** Names of the programs that were seen. */
    programs: () => [...programs],
    async [Symbol.asyncDispose]() {
      stop.abort();
      await looking;
    },
  };
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch {
    return Buffer.alloc(0); // it ended meanwhile
  }
}
