import type { z } from 'zod';
import { createDocument, type ZodOpenApiOperationObject, type ZodOpenApiPathsObject } from 'zod-openapi';
import type { Route, RouteRole, Routes } from '../contract/route.ts';
import { Problem } from '../errors.ts';

/** The OpenAPI 3.1 document of a table of routes. */
export function openApi(table: Routes, info: { title: string; version: string; description: string }): object {
  const paths: ZodOpenApiPathsObject = {};
  for (const [name, route] of Object.entries(table)) {
    const path = route.path.replace(/:(\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [route.method]: describeRoute(name, route) };
  }
  return createDocument({
    openapi: '3.1.0',
    info,
    paths,
    security: [{ bearer: [] }],
    components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
  });
}

function describeRoute(name: string, route: Route): ZodOpenApiOperationObject {
  const ok = {
    description: route.status === 202 ? 'Accepted' : 'Done',
    ...(route.output && { content: { 'application/json': { schema: route.output } } }),
    ...(route.outputStream && { content: { [route.outputStream]: { schema: { type: 'string' as const } } } }),
  };
  const started = route.starts
    ? " Understands `Idempotency-Key` (a repeated request returns the first one's operation) and `Prefer: wait=N` (answers when the operation has ended, after N seconds at most)."
    : '';
  const requestBody = route.body
    ? { content: { 'application/json': { schema: route.body as z.ZodType } } }
    : route.bodyStream
      ? { content: { 'application/octet-stream': { schema: { type: 'string' as const, format: 'binary' } } } }
      : undefined;
  return {
    operationId: name,
    tags: [route.tag],
    summary: route.summary,
    description: `${route.description ?? ''}${started} ${needs(route.role)}`.trim(),
    ...(route.role === 'anyone' ? { security: [] } : { 'x-role': route.role }),
    requestParams: { ...(route.params && { path: route.params }), ...(route.query && { query: route.query }) },
    ...(requestBody && { requestBody }),
    responses: {
      [route.status]: ok,
      default: { description: 'What went wrong', content: { 'application/problem+json': { schema: Problem } } },
    },
  };
}

const needs = (role: RouteRole): string => (role === 'anyone' ? 'Needs no token.' : `Needs the role ${role}.`);
