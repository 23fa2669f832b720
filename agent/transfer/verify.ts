import { EndError } from './end-error.ts';
import { digestOf, type PartDigest } from './parts.ts';

/**
 * The digest of a part that arrived. DIGEST_MISMATCH, naming the part, where it is not the expected one: such bytes must not be used.
 */
export function verifyPart(
  name: string,
  index: number,
  offset: number,
  data: Buffer,
  expected: PartDigest | undefined,
): PartDigest {
  const found = digestOf(data);
  if (expected !== undefined && expected !== found)
    throw mismatch(name, index, { offset, length: data.length, digest: found, expected });
  return found;
}

export function mismatch(
  name: string,
  index: number,
  part: { offset: number; length: number; digest: PartDigest; expected: PartDigest },
): EndError {
  const where = `part ${index} of ${name} (${part.length} bytes at ${part.offset})`;
  return new EndError('DIGEST_MISMATCH', `verifying ${where}: it is ${part.digest}, the manifest says ${part.expected}`);
}
