import { crc32 } from 'node:zlib';

const SUM_LENGTH = 8;

/** `value` as one line of a state file: the CRC-32 of its JSON in hex, a space, the JSON. So a flipped bit shows, also one inside a value. */
export function checkedLine(value: unknown): string {
  const json = JSON.stringify(value);
  return `${sumOf(json)} ${json}\n`;
}

/** What a line holds; undefined where it is not as `checkedLine` wrote it. */
export function readChecked(line: Buffer): unknown {
  const json = line.subarray(SUM_LENGTH + 1);
  if (line.toString('latin1', 0, SUM_LENGTH + 1) !== `${sumOf(json)} `) return undefined;
  try {
    return JSON.parse(json.toString('utf8')) as unknown;
  } catch {
    return undefined;
  }
}

const sumOf = (json: string | Buffer): string => crc32(json).toString(16).padStart(SUM_LENGTH, '0');
