import { CisternError } from '../../shared/errors.ts';

const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$/;

/**
 * The segments of an object's path. BAD_REQUEST for one that could lead out of the root or at a partial object: absolute, `..`, empty
 * segments, a leading dot or hyphen, or characters beyond letters, digits, dots, underscores and hyphens.
 */
export function segmentsOf(path: string): string[] {
  const segments = path.split('/');
  if (!segments.every(segment => SEGMENT.test(segment)) || path.includes('.partial-')) {
    throw new CisternError(
      'BAD_REQUEST',
      `the object path "${path}" is not allowed: use relative paths of letters, digits, dots, underscores and hyphens`,
    );
  }
  return segments;
}
