import { ERRORS } from '../../shared/errors.ts';
import { docsStyle } from './docs-style.ts';
import { escapeHtml, fieldRow, prose, sample, schemaTable, type Schema, typeOf } from './docs-schema.ts';

interface Media {
  schema?: Schema;
}
interface Operation {
  operationId: string;
  tags?: string[];
  summary?: string;
  description?: string;
  security?: unknown[];
  parameters?: { in: string; name: string; required?: boolean; description?: string; schema?: Schema }[];
  requestBody?: { content: Record<string, Media> };
  responses: Record<string, { description: string; content?: Record<string, Media> }>;
}
interface Document {
  info: { title: string; version: string; description?: string };
  paths: Record<string, Record<string, Operation>>;
  components?: { schemas?: Record<string, Schema> };
}
interface Endpoint {
  method: string;
  path: string;
  operation: Operation;
}

/**
 * An OpenAPI 3.1 document (of `openApi()`) as one self-contained HTML page: endpoints by tag with parameters, bodies, answers and
 * a curl line each, then the schemas, then every error code. The page loads nothing and runs no script.
 */
export function docsPage(document: object): string {
  const { info, paths, components } = document as Document;
  const schemas = components?.schemas ?? {};
  const groups = byTag(paths);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(info.title)} ${escapeHtml(info.version)}: HTTP API</title>
<style>${docsStyle}</style>
</head>
<body>
<nav>${[...groups].map(([tag, endpoints]) => contents(tag, endpoints)).join('')}
<h2><a href="#schemas">Schemas</a></h2><h2><a href="#errors">Error codes</a></h2></nav>
<main>
<h1>${escapeHtml(info.title)} <small>${escapeHtml(info.version)}</small></h1>
<p>${prose(info.description ?? '')}</p>
<p>Every request but those marked <i>open</i> carries <code>Authorization: Bearer TOKEN</code>. A thing is named in a path by its id or its name.
Sizes are bytes, times RFC 3339 in UTC. The machine-readable form of this page is <a href="/openapi.json">/openapi.json</a>.</p>
${[...groups].map(([tag, endpoints]) => section(tag, endpoints, schemas)).join('\n')}
<h2 id="schemas">Schemas</h2>
${Object.entries(schemas).map(schemaSection).join('\n')}
${errorSection()}
</main>
</body>
</html>
`;
}

const anchor = (text: string): string => text.replace(/[^A-Za-z0-9]+/g, '-');

function byTag(paths: Document['paths']): Map<string, Endpoint[]> {
  const groups = new Map<string, Endpoint[]>();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? 'other';
      groups.set(tag, [...(groups.get(tag) ?? []), { method, path, operation }]);
    }
  }
  return groups;
}

const contents = (tag: string, endpoints: Endpoint[]): string =>
  `<h2><a href="#tag-${anchor(tag)}">${escapeHtml(tag)}</a></h2><ul>${endpoints
    .map(
      ({ operation }) =>
        `<li><a href="#${escapeHtml(operation.operationId)}">${prose(operation.summary ?? operation.operationId)}</a></li>`,
    )
    .join('')}</ul>`;

const section = (tag: string, endpoints: Endpoint[], schemas: Record<string, Schema>): string =>
  `<section><h2 id="tag-${anchor(tag)}">${escapeHtml(tag)}</h2>${endpoints.map(e => article(e, schemas)).join('\n')}</section>`;

function article({ method, path, operation }: Endpoint, schemas: Record<string, Schema>): string {
  const open = operation.security?.length === 0 ? ' <i>open</i>' : '';
  const parameters = operation.parameters ?? [];
  const rows = parameters.map(p =>
    fieldRow(p.name, p.schema ?? {}, p.required ?? false, `${p.in}${p.description ? `: ${p.description}` : ''}`),
  );
  return `<article id="${escapeHtml(operation.operationId)}">
<h3>${prose(operation.summary ?? operation.operationId)}</h3>
<p class="route"><b class="${escapeHtml(method)}">${method.toUpperCase()}</b> <code>${escapeHtml(path)}</code>${open}</p>
${operation.description ? `<p>${prose(operation.description)}</p>` : ''}
${rows.length > 0 ? `<h4>Parameters</h4><table><tbody>${rows.join('')}</tbody></table>` : ''}
${Object.entries(operation.requestBody?.content ?? {})
  .map(([type, media]) => `<h4>Body <small>${escapeHtml(type)}</small></h4>${schemaTable(media.schema ?? {})}`)
  .join('')}
<h4>Answers</h4><ul>${Object.entries(operation.responses).map(answer).join('')}</ul>
<pre>${escapeHtml(curl(method, path, operation, schemas))}</pre>
</article>`;
}

function answer([status, response]: [string, Operation['responses'][string]]): string {
  const kinds = Object.entries(response.content ?? {}).map(
    ([type, media]) => `${describeAnswer(media.schema ?? {})} <small>${escapeHtml(type)}</small>`,
  );
  return `<li><code>${status === 'default' ? 'else' : escapeHtml(status)}</code> ${prose(response.description)}${kinds.length > 0 ? `: ${kinds.join(', ')}` : ''}</li>`;
}

/** Lists are told as `{items: [Volume], next}`; small objects by their fields; the rest by name. */
function describeAnswer(schema: Schema): string {
  if (!schema.properties) return typeOf(schema);
  const parts = Object.entries(schema.properties).map(([key, value]) => `${escapeHtml(key)}: ${typeOf(value)}`);
  return `{ ${parts.join(', ')} }`;
}

function curl(method: string, path: string, operation: Operation, schemas: Record<string, Schema>): string {
  const lines = [
    `curl -sS${method === 'get' ? '' : ` -X ${method.toUpperCase()}`} http://127.0.0.1:7070${path.replace(/\{ref\}/g, 'NAME')}`,
  ];
  if (operation.security?.length !== 0) lines.push('-H "Authorization: Bearer $TOKEN"');
  const body = operation.requestBody?.content;
  const json = body?.['application/json']?.schema;
  if (json) lines.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(sample(json, '', schemas))}'`);
  else if (body) lines.push("-H 'Content-Type: application/octet-stream'", '-T image.qcow2');
  return lines.join(' \\\n  ');
}

const schemaSection = ([name, schema]: [string, Schema]): string =>
  `<article id="schema-${escapeHtml(name)}"><h3>${escapeHtml(name)}</h3>${schema.description ? `<p>${prose(schema.description)}</p>` : ''}${schemaTable(schema)}</article>`;

function errorSection(): string {
  const rows = Object.entries(ERRORS).map(
    ([code, kind]) =>
      `<tr id="error-${code}"><td><code>${code}</code></td><td>${kind.status}</td><td>${kind.retryable ? 'yes' : 'no'}</td><td>${prose(kind.title)}</td><td>${prose(kind.action)}</td></tr>`,
  );
  return `<h2 id="errors">Error codes</h2>
<p>Errors are <code>application/problem+json</code> (RFC 9457) with a <code>code</code> that never changes its meaning.</p>
<table><thead><tr><th>code</th><th>HTTP</th><th>try again</th><th>what went wrong</th><th>what to do</th></tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}
