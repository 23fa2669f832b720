import { InvalidArgumentError } from 'commander';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/**
 * A size as typed (`10G`, `512M`, `1.5TiB`, `4096`) in bytes. Units are binary, as qemu-img's are; `10GB` is refused because it
 * means 10^10 to some and 10 * 2^30 to others. Throws InvalidArgumentError, which commander prints as wrong usage.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([KMGTP])(?:iB)?|B)?$/i.exec(text.trim());
  if (!match) {
    const decimal = /^[\d.]+\s*[KMGTP]B$/i.test(text.trim())
      ? ` Sizes are binary: write ${text.trim().slice(0, -1)} or ${text.trim().slice(0, -1)}iB.`
      : '';
    throw new InvalidArgumentError(`a size is a number with K, M, G, T or P, such as 10G or 1.5TiB.${decimal}`);
  }
  const power = match[2] ? 'KMGTP'.indexOf(match[2].toUpperCase()) + 1 : 0;
  const bytes = Math.round(Number(match[1]) * 1024 ** power);
  if (!Number.isSafeInteger(bytes)) throw new InvalidArgumentError('that is more bytes than can be counted.');
  return bytes;
}

/** A whole number of at least `min`, as commander's argParser wants it. */
export const parseCount =
  (min: number, max = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(
        max === Number.MAX_SAFE_INTEGER ? `a whole number of at least ${min}.` : `a whole number from ${min} to ${max}.`,
      );
    }
    return value;
  };

/** A number above 0, such as an over-commit ratio. */
export function parseRatio(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value <= 0) throw new InvalidArgumentError('a number above 0, such as 2 or 1.5.');
  return value;
}

const SPANS = { s: 1, m: 60, h: 3600, d: 86_400 };

/** An end as typed, a time span from now (`12h`, `90d`) or a time (`2027-01-31T00:00:00Z`), as RFC 3339. Throws InvalidArgumentError. */
export function parseEnd(text: string): string {
  const span = /^(\d{1,5})([smhd])$/.exec(text);
  const time = span ? Date.now() + Number(span[1]) * SPANS[span[2] as keyof typeof SPANS] * 1000 : Date.parse(text);
  if (Number.isNaN(time) || (!span && !/^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)$/.test(text)))
    throw new InvalidArgumentError('a time span such as 12h or 90d, or a time such as 2027-01-31T00:00:00Z.');
  return new Date(time).toISOString();
}

/** Bytes for people, in binary units with up to one decimal: `512 B`, `1.5 GiB`; `-` where it is not known. */
export function formatBytes(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined) return '-';
  let power = 0;
  // 1023.95 and above would print as 1024.0 of the smaller unit
  while (power < UNITS.length - 1 && bytes / 1024 ** power >= 1023.95) power += 1;
  const value = bytes / 1024 ** power;
  return `${power === 0 ? String(Math.round(value)) : value.toFixed(1)} ${UNITS[power]}`;
}

/** A time span for people, with its two largest units at most: `45s`, `3m20s`, `2h5m`, `3d4h`. */
export function formatSpan(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ] as const;
  const first = parts.findIndex(([value]) => value > 0);
  if (first === -1) return '0s';
  const shown = parts.slice(first, first + 2).filter(([value]) => value > 0);
  return shown.map(([value, unit]) => `${value}${unit}`).join('');
}

/** How long something took: with tenths while it is short. */
export const formatDuration = (seconds: number): string => (seconds < 10 ? `${seconds.toFixed(1)}s` : formatSpan(seconds));

/** How long ago a time was, by its largest unit: `30s`, `3m`, `5h`, `2d`; `-` for never. */
export function formatAge(time: string | null | undefined, now = Date.now()): string {
  if (!time) return '-';
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}
