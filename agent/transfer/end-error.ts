import type { ErrorCode } from '../../shared/errors.ts';

/**
 * A CisternError as a transfer thread throws it. Threads do not load `shared/errors.ts`, and zod with it: that would cost every
 * thread some 10 MiB and a tenth of a second. `transfer` turns it into a CisternError of the same code and words.
 */
export class EndError extends Error {
  override name = 'EndError';
  readonly code: ErrorCode;
  constructor(code: ErrorCode, detail: string, options?: { cause?: unknown }) {
    super(detail, options);
    this.code = code;
  }
}
