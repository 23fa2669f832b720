import { copyFile, open, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from '../../unit/corpus/image.ts';
import { readMutant, type Mutant } from './mutant.ts';

/** What `qemu-img info` may say of a mutant that passed. */
export interface QemuSays {
  virtualSize: number;
  /** What it would read besides this one file, or decrypt; must be empty. */
  follows: string[];
}

interface Info {
  'virtual-size': number;
  encrypted?: boolean;
  'format-specific'?: { data: Record<string, unknown> & { extents?: { filename: string }[] } };
}

/** Asks qemu-img about one mutant after another, in files below `dir` that are made once for each honest image and patched. Null: qemu refuses it. */
export function qemuIn(dir: string): (mutant: Mutant, format: string) => Promise<QemuSays | null> {
  const made = new Set<string>();
  return async (mutant, format) => {
    const { seed, size } = mutant;
    const path = join(dir, `mutant.${seed.base}`);
    if (!made.has(path)) await copyFile(join(dir, '..', `base.${seed.base}`), path);
    made.add(path);
    await using file = await open(path, 'r+');
    const restore: { at: number; bytes: Buffer }[] = [];
    for (const { at, bytes } of mutant.edits) {
      restore.push({ at, bytes: seed.bytes.subarray(at, at + bytes.length) });
      await file.write(readMutant(mutant, at, bytes.length), 0, bytes.length, at);
    }
    if (size < seed.bytes.length) restore.push({ at: size, bytes: seed.bytes.subarray(size) });
    await file.truncate(size);
    try {
      return await ask(path, format);
    } finally {
      for (const { at, bytes } of restore) await file.write(bytes, 0, bytes.length, at);
      await truncate(path, seed.bytes.length);
    }
  };
}

async function ask(path: string, format: string): Promise<QemuSays | null> {
  const args = ['info', '-f', format, '--output=json', path];
  const said = await exec('qemu-img', args, { timeout: 60_000 }).catch((error: unknown) => {
    // an answer, unlike a signal
    if ((error as { code?: unknown }).code === 1) return null;
    throw error;
  });
  if (!said) return null;
  const info = JSON.parse(said.stdout) as Info & Record<string, unknown>;
  const data = info['format-specific']?.data;
  const follows = ['backing-filename', 'full-backing-filename', 'backing-filename-format'].filter(key => info[key] !== undefined);
  if (data?.['data-file'] !== undefined) follows.push(`data-file ${String(data['data-file'])}`);
  if (info.encrypted === true || data?.['encrypt'] !== undefined) follows.push('encryption');
  for (const { filename } of data?.extents ?? []) if (filename !== path) follows.push(`extent ${filename}`);
  return { virtualSize: info['virtual-size'], follows };
}
