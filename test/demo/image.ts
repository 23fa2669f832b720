import { copyFile, cp, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

const SIZE = 1024 ** 3;

/** Makes a qcow2 image of 1 GiB with an ext4 file system that holds this project's code and a Node. */
export async function makeImage(folder: string): Promise<string> {
  const root = join(folder, 'root');
  const raw = join(folder, 'base.raw');
  const image = join(folder, 'base.qcow2');
  await mkdir(root);
  await fill(root, join(import.meta.dirname, '../..'));
  await using file = await open(raw, 'wx');
  await file.truncate(SIZE);
  await execa('mkfs.ext4', ['-q', '-F', '-L', 'cistern-demo', '-d', root, raw], {
    env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  await execa('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '--', raw, image]);
  await rm(root, { recursive: true });
  await rm(raw);
  return image;
}

/** Copies the code of a checkout and the Node that runs this into a folder: real content, text and binary. */
async function fill(target: string, checkout: string): Promise<void> {
  for (const name of ['agent', 'controller', 'shared', 'README.md'])
    await cp(join(checkout, name), join(target, name), { recursive: true });
  await copyFile(process.execPath, join(target, 'node'));
}
