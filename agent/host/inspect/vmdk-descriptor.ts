import { CisternError } from '../../../shared/errors.ts';
import { quote, requireSound } from './file.ts';

const WHOLE = ['monolithicSparse', 'streamOptimized'];
const EXTENT = /^\s*(?:RW|RDONLY|NOACCESS)\s/i;
const ONE_SPARSE = /^\s*(?:RW|RDONLY)\s+\d+\s+SPARSE\s+"([^"]*)"\s*$/;

/**
 * The text inside a VMDK: one sparse extent, no other file, no parent. The extent's name is the one that the file had where it was
 * made; qemu does not open it for these types, and one in another folder is refused all the same.
 */
export function checkDescriptor(text: string): void {
  checkNoParent(text);
  checkNoPath(text);
  const lines = (text.split('\0', 1)[0] ?? '').split(/\r?\n/);
  const kinds = lines.filter(line => line.includes('createType'));
  const kind = /^\s*createType\s*=\s*"([^"]*)"\s*$/.exec(kinds[0] ?? '')?.[1];
  if (kinds.length === 0)
    throw new CisternError('IMAGE_EXTENTS', 'it has an empty descriptor: it is a part of a VMDK of several files');
  requireSound(kinds.length === 1 && kind !== undefined, 'the descriptor does not say its createType once');
  if (!WHOLE.includes(kind)) throw new CisternError('IMAGE_EXTENTS', `it is a VMDK of type ${quote(kind)}`);
  const extents = lines.filter(line => EXTENT.test(line));
  if (extents.length !== 1) throw new CisternError('IMAGE_EXTENTS', `its descriptor lists ${extents.length} extents`);
  const extent = extents[0] ?? '';
  const name = ONE_SPARSE.exec(extent)?.[1];
  if (name === undefined) throw new CisternError('IMAGE_EXTENTS', `its extent is ${quote(extent)}`);
}

/** IMAGE_EXTENT_PATH where an extent is named with a folder: no honest writer has to leave the one that the descriptor is in. */
export function checkNoPath(text: string): void {
  const extent = text.split(/\r?\n/).find(line => EXTENT.test(line) && /"[^"]*[/\\]/.test(line));
  if (extent !== undefined) throw new CisternError('IMAGE_EXTENT_PATH', `its extent is in another folder: ${quote(extent)}`);
}

/** IMAGE_BACKING_FILE where the text names a parent; both ways of naming one are looked for anywhere in it. */
export function checkNoParent(text: string): void {
  const hint = /parentFileNameHint.{0,200}/i.exec(text)?.[0];
  if (hint !== undefined) throw new CisternError('IMAGE_BACKING_FILE', `it names a parent: ${quote(hint)}`);
  for (const [line, cid] of text.matchAll(/parentCID[ \t]*=?[ \t]*([^\r\n\0]{0,40})/gi)) {
    if (cid?.trim().toLowerCase() !== 'ffffffff')
      throw new CisternError('IMAGE_BACKING_FILE', `it names a parent: ${quote(line)}`);
  }
}
