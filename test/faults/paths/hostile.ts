/** Requests that are right but for something hostile in one place of them, made from the schemas of the wire. */
import fc from 'fast-check';
import { z } from 'zod';

/** Where what is asked for must not lead, and what a shell would do there. */
export interface Prey {
  /** A file that is nobody's business. */
  file: string;
  /** A file that nobody makes. */
  trap: string;
}

/** Strings that mean something else to a file system, a shell, a program's options, a URL or a parser than to us. */
export function hostileStrings({ file, trap }: Prey): fc.Arbitrary<string> {
  const id = '0198f1b2-aaaa-7000-8000-00000000000a';
  const fixed = [
    ...['..', '.', '', '/', '~', '~root', '-', '--', '*', '\0', '\n', ' ', '%2e%2e%2f', '%00', '__proto__', 'constructor'],
    ...['../escaped', '../../escaped', '../../../escaped', 'images/../../escaped', './../a-twin/precious', 'a\0b', 'a\nb'],
    ...[`${id}/../../escaped`, `../${id}`, `${id}\0`, `${id}\n`, id.toUpperCase(), `${id}.`, `${id}/`, `{${id}}`],
    ...[file, `${file}/`, `file://${file}`, `/dev/null`, `/proc/self/environ`, `//${file}`, `json:{"filename":"${file}"}`],
    ...['-o', '--help', '-rf', '-oProxyCommand=id', '--output=escaped', '-b', '-n', '--no-preserve-root', '-o/../escaped'],
    ...[`$(touch ${trap})`, `\`touch ${trap}\``, `;touch ${trap};`, `|touch ${trap}`, `&&touch ${trap}`, `'"; touch ${trap} #`],
    ...[
      '\u2025/escaped',
      '\uff0e\uff0e/escaped',
      '..\u2215escaped',
      '..\\escaped',
      'caf\u0065\u0301',
      '\u202egnp',
      '\ud800',
      '\ufeff',
    ],
    ...['0x7f000001', '[::ffff:127.0.0.1]', 'http://169.254.169.254/', 'nbd:unix:/tmp/x', 'ssh://x', 'fd:3', '/proc/self/fd/3'],
    ...['a'.repeat(256), 'a'.repeat(5000), '../'.repeat(400), '-'.repeat(3000)],
  ];
  const spoilt = fc.tuple(fc.constantFrom('..', '/', '-', '$', '\0', '\n', ';', '\u2215'), fc.string({ maxLength: 8 }));
  return fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...fixed) },
    { weight: 1, arbitrary: spoilt.map(([first, rest]) => first + rest) },
    { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 30 }) },
  );
}

/** Values for fields of these names, in place of what their schema says. */
export type Hints = Record<string, fc.Arbitrary<unknown>>;

interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  type?: string;
  format?: string;
  pattern?: string;
  minimum?: number;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  minItems?: number;
}

/** What a schema takes, more or less: enough of it is right for the work behind it to begin. */
export function valuesOf(schema: z.ZodType, hints: Hints): fc.Arbitrary<unknown> {
  const whole = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Schema;
  const walk = (at: Schema, name: string): fc.Arbitrary<unknown> => {
    if (Object.hasOwn(hints, name)) return hints[name]!;
    if (at.$ref !== undefined) return walk(whole.$defs![at.$ref.split('/').at(-1)!]!, name);
    if ('const' in at) return fc.constant(at.const);
    if (at.enum !== undefined) return fc.constantFrom(...at.enum);
    const either = at.anyOf ?? at.oneOf;
    if (either !== undefined) return fc.oneof(...either.map(one => walk(one, name)));
    switch (at.type) {
      case 'object': {
        const fields = Object.entries(at.properties ?? {}).map(([key, one]) => [key, walk(one, key)] as const);
        return fc.record(Object.fromEntries(fields), { requiredKeys: at.required ?? [] });
      }
      case 'array': {
        const minLength = at.minItems ?? 0;
        return fc.array(walk(at.items ?? {}, name), { minLength, maxLength: minLength + 1 });
      }
      case 'integer':
      case 'number':
        return fc.constantFrom(at.minimum ?? 0, 1, 512, 2 ** 20, 8 * 2 ** 20);
      case 'boolean':
        return fc.boolean();
      case 'null':
        return fc.constant(null);
      default:
        return fc.constantFrom(at.format === 'date-time' ? '2026-01-01T00:00:00Z' : 'word', 'other');
    }
  };
  return walk(whole, '');
}

/** `value` with something else in place of one of its leaves, or, one time in three, as it is: work goes on besides. */
export function spoil(value: fc.Arbitrary<unknown>, hostile: fc.Arbitrary<string>): fc.Arbitrary<unknown> {
  const other: fc.Arbitrary<unknown> = fc.oneof(
    { weight: 12, arbitrary: hostile },
    { weight: 1, arbitrary: fc.constantFrom(null, -1, 2 ** 53, 1.5, true, [], {}, ['x'], { toString: 'x' }) },
  );
  return fc.tuple(value, fc.nat(), other, fc.nat(2)).map(([good, at, bad, luck]) => {
    const places = leaves(good);
    return luck === 0 || places.length === 0 ? good : put(good, places[at % places.length]!, bad);
  });
}

type Path = (string | number)[];

function leaves(value: unknown, at: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [at];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...at, key]));
}

function put(value: unknown, [first, ...rest]: Path, bad: unknown): unknown {
  if (first === undefined) return bad;
  if (Array.isArray(value)) return value.map((one, i) => (i === Number(first) ? put(one, rest, bad) : (one as unknown)));
  const object = value as Record<string, unknown>;
  return { ...object, [first]: put(object[first], rest, bad) };
}

/** Every string in a value. */
export function stringsOf(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(stringsOf) : [];
}
