import { stat } from 'node:fs/promises';
import { CisternError, wrapError } from '../../shared/errors.ts';
import type { ImageFormat } from '../../shared/model.ts';
import { inspectImage } from './inspect.ts';
import { openImage } from './inspect/file.ts';
import { INCOMPATIBLE, readHeader } from './inspect/qcow2-header.ts';

/**
 * Judges a file that should be an image of ours, before anything stands on it: one that came from a backup storage, where others may
 * write, or out of a converter that has read hostile bytes. It must stand alone and show a guest just the bytes that it should.
 * A raw file is never looked into, as nothing ever does: whatever header a guest wrote into it is that guest's data.
 * Throws IMAGE_*; IO_ERROR for what cannot be read.
 */
export async function inspectCopy(path: string, image: { format: ImageFormat; virtualSize: number }): Promise<void> {
  const { format, virtualSize } = image;
  const found = format === 'raw' ? await rawSize(path) : await inspectImage(path, { declared: format, maxVirtualSize: Infinity });
  if (found.virtualSize === virtualSize) return;
  throw new CisternError(
    'IMAGE_CORRUPT',
    `inspecting ${path}: it shows a guest ${found.virtualSize} bytes, ${virtualSize} were told of it`,
  );
}

async function rawSize(path: string): Promise<{ virtualSize: number }> {
  const { size } = await stat(path).catch((error: unknown) => {
    throw wrapError(error, 'IO_ERROR', `inspecting ${path}`);
  });
  // qemu pads the last sector with zeros
  return { virtualSize: Math.ceil(size / 512) * 512 };
}

/**
 * IMAGE_DATA_FILE where a qcow2 layer of ours has come to name a file for its data: qemu would open it, and unlike a backing file
 * it cannot be told not to. Only a program that broke out of its VM writes such a header.
 */
export async function inspectLayer(path: string): Promise<void> {
  await using image = await openImage(path);
  const { incompatible } = await readHeader(image);
  if ((incompatible & INCOMPATIBLE.dataFile) !== 0n)
    throw new CisternError(
      'IMAGE_DATA_FILE',
      `inspecting ${path}: its external data file bit is set, and no layer of ours has one`,
    );
}
