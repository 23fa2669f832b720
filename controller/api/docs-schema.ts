/** The part of JSON Schema (as OpenAPI 3.1 uses it) that the docs page reads. */
export interface Schema {
  $ref?: string;
  type?: string | string[];
  format?: string;
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  anyOf?: Schema[];
  oneOf?: Schema[];
  additionalProperties?: boolean | Schema;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  pattern?: string;
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Text made safe for HTML, in elements and in quoted attributes. */
export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, c => ENTITIES[c]!);

/** Escaped text with its `code` parts set as code. */
export const prose = (text: string): string => escapeHtml(text).replace(/`([^`]+)`/g, '<code>$1</code>');

/** Name of a component schema that `schema` refers to. */
export const refName = (schema: Schema): string | undefined => schema.$ref?.split('/').at(-1);

/** The type of a value in a few words of HTML, with a link where it is a component. */
export function typeOf(schema: Schema): string {
  const name = refName(schema);
  if (name) return `<a href="#schema-${escapeHtml(name)}">${escapeHtml(name)}</a>`;
  if (schema.const !== undefined) return `<code>${escapeHtml(JSON.stringify(schema.const))}</code>`;
  if (schema.enum) return schema.enum.map(value => `<code>${escapeHtml(String(value))}</code>`).join(' | ');
  const branches = schema.anyOf ?? schema.oneOf;
  if (branches) return [...new Set(branches.map(typeOf))].join(' | ');
  if (schema.items) return `array of ${typeOf(schema.items)}`;
  if (schema.properties) return 'object';
  if (typeof schema.additionalProperties === 'object') return `map of ${typeOf(schema.additionalProperties)}`;
  if (schema.type === undefined) return 'any';
  const types = [schema.type].flat().join(' | ');
  return escapeHtml(schema.format ? `${types} (${schema.format})` : types);
}

/** What limits a value: its bounds and default, in words. */
function limits(schema: Schema): string[] {
  const far = Number.MAX_SAFE_INTEGER;
  return [
    schema.minimum !== undefined && schema.minimum > -far ? `at least ${schema.minimum}` : '',
    schema.maximum !== undefined && schema.maximum < far ? `at most ${schema.maximum}` : '',
    schema.minItems ? `at least ${schema.minItems} entries` : '',
    schema.maxItems !== undefined ? `at most ${schema.maxItems} entries` : '',
    schema.default !== undefined ? `default \`${JSON.stringify(schema.default)}\`` : '',
  ].filter(Boolean);
}

/** One row of a table of fields or parameters. */
export function fieldRow(name: string, schema: Schema, required: boolean, description = schema.description ?? ''): string {
  const words = [description, ...limits(schema)].filter(Boolean).join('; ');
  const must = required ? ' <b title="must be given">*</b>' : '';
  return `<tr><td><code>${escapeHtml(name)}</code>${must}</td><td>${typeOf(schema)}</td><td>${prose(words)}</td></tr>`;
}

/** A schema as a table of its fields; fields of nested objects follow with their path. */
export function schemaTable(schema: Schema): string {
  const rows = [...fields(schema, '', 0)];
  if (rows.length === 0) return `<p>${typeOf(schema)}${schema.description ? `: ${prose(schema.description)}` : ''}</p>`;
  return `<table><thead><tr><th>field</th><th>type</th><th>meaning</th></tr></thead><tbody>${rows.join('')}</tbody></table>`;
}

function* fields(schema: Schema, prefix: string, depth: number): Generator<string> {
  // the contract nests three deep at most; the bound is for documents to come
  if (depth > 6) return;
  for (const [key, value] of Object.entries(schema.properties ?? {})) {
    yield fieldRow(prefix + key, value, schema.required?.includes(key) ?? false);
    yield* fields(value, `${prefix}${key}.`, depth + 1);
  }
  if (schema.items) yield* fields(schema.items, prefix ? `${prefix.slice(0, -1)}[].` : '[].', depth + 1);
  const branches = (schema.anyOf ?? schema.oneOf ?? []).filter(branch => branch.properties);
  for (const branch of branches) yield* fields(branch, prefix, depth + 1);
}

/** A value that fits `schema`, for examples: what must be given (and a size, which volumes need), references found in `components`. */
export function sample(schema: Schema, name = '', components: Record<string, Schema> = {}, depth = 0): unknown {
  const referred = refName(schema);
  if (depth > 8) return null;
  if (referred) return sample(components[referred] ?? {}, name, components, depth + 1);
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const branch = (schema.anyOf ?? schema.oneOf)?.[0];
  if (branch) return sample(branch, name, components, depth + 1);
  if (schema.properties) {
    const all = Object.entries(schema.properties);
    const wanted = all.filter(([key]) => schema.required?.includes(key) || key === 'size');
    return Object.fromEntries(
      (wanted.length > 0 ? wanted : all.slice(0, 1)).map(([key, value]) => [key, sample(value, key, components, depth + 1)]),
    );
  }
  if (schema.items) return [sample(schema.items, name, components, depth + 1)];
  const type = [schema.type].flat()[0];
  if (type === 'integer' || type === 'number') return name === 'size' ? 10 * 2 ** 30 : (schema.minimum ?? 1);
  if (type === 'boolean') return true;
  if (type === 'object') return {};
  return sampleString(schema, name);
}

function sampleString(schema: Schema, name: string): string {
  if (schema.format === 'uri') return 'https://example.org/image.qcow2';
  if (schema.format === 'uuid') return '0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b';
  if (schema.format === 'date-time') return '2030-01-01T00:00:00Z';
  return name === 'name' ? 'example' : name.toUpperCase() || 'TEXT';
}
