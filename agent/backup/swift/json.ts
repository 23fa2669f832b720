import { EndError } from '../../transfer/end-error.ts';

/** An answer in JSON that is an object. STORE_UNREACHABLE where it is not: something else than the storage answers there. */
export function parseObject(body: Buffer, tried: string): Record<string, unknown> {
  const json = parseJson(body, tried);
  if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as Record<string, unknown>;
  throw new EndError('STORE_UNREACHABLE', `${tried}: the answer is no JSON object`);
}

export function parseJson(body: Buffer, tried: string): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new EndError('STORE_UNREACHABLE', `${tried}: the answer is not JSON: ${(error as Error).message}`, { cause: error });
  }
}
