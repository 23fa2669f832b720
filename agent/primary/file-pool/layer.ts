import { tmpdir } from 'node:os';
import type { ImageFormat } from '../../../shared/model.ts';
import { overlayImage, overlayMatches, type OverlaySpec, writeOverlay } from '../../host/qcow2-overlay.ts';
import { createEmpty, createOverlay, supportsExtendedL2, version } from '../../host/qemu-img.ts';

/** Makes one new qcow2 file. */
export type WriteLayer = (path: string) => Promise<void> | void;

/** For each version of qemu-img seen: whether it makes the very bytes that we do. */
const trusted = new Map<string, Promise<boolean>>();

/**
 * How the layers of new volumes are written: by ourselves, a hundred times faster than a process, where the installed qemu-img
 * makes the very same bytes; else by qemu-img. The backing name is relative to `volumes/<id>/`.
 */
export async function layerWriter(
  size: number,
  backing: { name: string; format: ImageFormat } | null,
  signal: AbortSignal,
): Promise<WriteLayer> {
  const installed = await version(signal);
  const extendedL2 = supportsExtendedL2(installed);
  if (extendedL2 && (await agrees(installed))) {
    const image = overlayImage({ size, backing });
    if (image !== undefined) return path => writeOverlay(path, image, { sync: false });
  }
  return path => create(path, { size, backing, extendedL2 }, signal);
}

async function agrees(installed: string): Promise<boolean> {
  const known = trusted.get(installed);
  const asked = known ?? overlayMatches((path, spec) => create(path, spec, undefined), tmpdir());
  trusted.set(installed, asked);
  try {
    return await asked;
  } catch {
    // where they cannot be compared, as on a full disk, qemu-img itself makes this one, and tells what is wrong with it if that is it
    trusted.delete(installed);
    return false;
  }
}

const create = (
  path: string,
  { size, backing, extendedL2 = true }: OverlaySpec,
  signal: AbortSignal | undefined,
): Promise<void> =>
  backing === null ? createEmpty({ path, size, extendedL2, signal }) : createOverlay({ path, backing, size, extendedL2, signal });
