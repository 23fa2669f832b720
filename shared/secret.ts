import { z } from 'zod';

/** What may be shown of a value that comes in by a schema: nothing (undefined), or less than the whole. */
type Shown = (value: unknown) => unknown;

const marks = z.registry<{ shown: Shown }>();

/**
 * Marks what a schema takes as secret: this is the one place that knows. Settings of drivers say it to the controller by `writeOnly`
 * in their JSON Schema, requests to the operations that show them by `shownOf`.
 */
export function secret<T extends z.ZodType>(schema: T, shown: Shown = () => undefined): T {
  const marked = schema.meta({ ...schema.meta(), writeOnly: true });
  marks.add(marked, { shown });
  return marked;
}

/** A URL whose user, password, query (which may be a signature) and fragment are not shown. */
export const secretUrl = <T extends z.ZodType>(schema: T): T => {
  marks.add(schema, { shown: text => withoutSecrets(String(text)) });
  return schema;
};

function withoutSecrets(text: string): string {
  const url = new URL(text);
  url.username = url.password = url.hash = '';
  if (url.search) url.search = '?...';
  return url.href;
}

/** What may be shown of `value`, which `schema` has let through. */
export function shownOf(schema: z.ZodType | undefined, value: unknown): unknown {
  if (schema === undefined) return value;
  const mark = marks.get(schema);
  if (mark) return value === undefined ? undefined : mark.shown(value);
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodDefault)
    return shownOf(schema.unwrap() as z.ZodType, value);
  if (schema instanceof z.ZodArray && Array.isArray(value)) return value.map(item => shownOf(schema.element as z.ZodType, item));
  if (schema instanceof z.ZodUnion)
    return shownOf(
      (schema.options as z.ZodType[]).find(option => option.safeParse(value).success),
      value,
    );
  if (!(schema instanceof z.ZodObject) || value === null || typeof value !== 'object') return value;
  const shape = schema.shape as Record<string, z.ZodType>;
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, field]) => [key, shownOf(shape[key], field)])
      .filter(([, field]) => field !== undefined),
  );
}
