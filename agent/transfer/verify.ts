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
  if (expected !== undefined && expected !== found) {
    const where = `part ${index} of ${name} (${data.length} bytes at ${offset})`;
    throw new EndError('DIGEST_MISMATCH', `verifying ${where}: it is ${found}, the manifest says ${expected}`);
  }
  return found;
}
