import { CisternError, type ErrorCode } from '../../../shared/errors.ts';

/** The same cluster, another role: what a backup storage would say as a pool says it. */
const CODES: Partial<Record<ErrorCode, ErrorCode>> = {
  STORE_UNREACHABLE: 'POOL_UNAVAILABLE',
  STORE_AUTH: 'POOL_CONFIG',
  STORE_CONFIG: 'POOL_CONFIG',
  STORE_PERMISSION: 'POOL_CONFIG',
  STORE_FULL: 'POOL_FULL',
  STORE_IO_ERROR: 'POOL_IO_ERROR',
  STORE_BUSY: 'VOLUME_IN_USE',
  OBJECT_MISSING: 'POOL_IO_ERROR',
};

export function poolError(error: unknown): unknown {
  const code = error instanceof CisternError ? CODES[error.code] : undefined;
  return code === undefined ? error : new CisternError(code, (error as CisternError).message, { cause: error });
}

/** Work on the pool, with its errors as a pool's. */
export async function inPool<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw poolError(error);
  }
}
