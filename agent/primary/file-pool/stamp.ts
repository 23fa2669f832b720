import { readFileSync } from 'node:fs';
import { lstat, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { readJson, toJson } from './meta.ts';

/** What the file system tells of a file without reading it. */
const Stamp = z.object({
  /** Changes where its bytes are written, or another file takes its place. */
  content: z.string(),
  /** Time of its last change of any kind. */
  changed: z.string(),
  /** Who may do what with it: libvirt changes that when a VM starts and ends. */
  access: z.string(),
  /**
   * The boot of the host in which it was read, or none where other hosts see the pool too: then its disk is not this host's.
   *
   * Before an image is remembered its bytes are on the disk (published after fsync, or read past the page cache), so that a power cut takes
   * nothing from one that nobody writes to. But where somebody wrote to it, the new bytes may have reached the disk and the new times not:
   * the file then looks as it did when it was verified. And disks lose power badly. So each image is read once after each start of the host.
   */
  boot: z.string(),
});
type Stamp = z.infer<typeof Stamp>;

/** A cached image: its name, as a key, and its path beneath its folder, which is held. */
export interface HeldImage {
  name: string;
  path: string;
  /** Whether other hosts see the pool too. */
  shared: boolean;
}

/** `cache/<imageId>/verified.json`: what the image looked like when all of its parts were last found right. */
const fileOf = (image: HeldImage): string => join(dirname(image.path), 'verified.json');

/** The same by the image's name, for images that this process has looked at: most of the time no file is read. */
const seen = new Map<string, Stamp>();

export async function stampOf(image: HeldImage): Promise<Stamp> {
  const { ino, size, mtimeNs, ctimeNs, uid, gid, mode } = await lstat(image.path, { bigint: true });
  const boot = image.shared ? 'any' : (thisBoot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
  return { content: [ino, size, mtimeNs].join(' '), changed: String(ctimeNs), access: [uid, gid, mode].join(' '), boot };
}

let thisBoot: string | undefined;

/** Whether nobody has written to an image since it was verified, in this boot of the host. A change of owner or mode is none of its bytes. */
export async function isAsVerified(image: HeldImage): Promise<boolean> {
  const now = await stampOf(image);
  const then = seen.get(image.name) ?? (await readJson(fileOf(image), Stamp).catch(() => undefined));
  if (then?.content !== now.content || then.boot !== now.boot) return false;
  if (then.changed !== now.changed && then.access === now.access) return false;
  seen.set(image.name, now);
  return true;
}

/** Remembers that an image was verified when it looked so. Where that cannot be written it is verified once more by the next process. */
export async function remember(image: HeldImage, stamp: Stamp): Promise<void> {
  seen.set(image.name, stamp);
  const next = `${fileOf(image)}.next`;
  try {
    await rm(next, { force: true });
    await using file = await open(next, 'wx', 0o644);
    await file.writeFile(toJson(stamp));
    await rename(next, fileOf(image));
  } catch {
    await rm(next, { force: true }).catch(() => undefined); // a full or read-only pool
  }
}

/** The image is to be read before it is used again. */
export async function forget(image: HeldImage): Promise<void> {
  unsee(image.name);
  await rm(fileOf(image), { force: true });
}

/** The image with this name goes. */
export const unsee = (name: string): void => void seen.delete(name);
