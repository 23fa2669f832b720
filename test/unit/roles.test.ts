import assert from 'node:assert/strict';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { reportRoutes } from '../../shared/contract/operations.ts';
import type { Route, RouteRole } from '../../shared/contract/route.ts';
import { openApi } from '../../shared/http/openapi.ts';
import { Role } from '../../shared/model.ts';

const ROUTES = Object.entries(controllerRoutes) as [string, Route][];
const names = (fits: (route: Route) => boolean): string[] => ROUTES.filter(([, route]) => fits(route)).map(([name]) => name);

describe('roles: what each route of the controller asks for', () => {
  it('looking is for readers, and changes are for nobody less than an operator', () => {
    const open = ['healthz', 'openapi', 'docs'];
    assert.deepEqual(
      names(route => route.role === 'anyone'),
      open,
    );
    assert.deepEqual(
      names(route => route.method === 'get' && route.role !== 'reader'),
      open,
    );
    assert.deepEqual(
      names(route => route.method !== 'get' && route.role !== 'operator' && route.role !== 'admin'),
      [],
    );
  });

  it('hosts, clusters, storages and tokens are the admin’s, daily work the operator’s', () => {
    const tagsOf = (role: RouteRole) => [...new Set(ROUTES.filter(([, route]) => route.role === role).map(([, { tag }]) => tag))];
    assert.deepEqual(tagsOf('admin').sort(), ['backup storage', 'clusters', 'hosts', 'primary storage', 'service', 'tokens']);
    assert.deepEqual(tagsOf('operator').sort(), ['image cache', 'images', 'operations', 'volumes']);
  });

  it('the routes between the services take no token of people', () => {
    const roles = (table: Record<string, Route>) => new Set(Object.values(table).map(route => route.role));
    assert.deepEqual([...roles(agentRoutes)].sort(), ['anyone', 'controller']);
    assert.deepEqual([...roles(reportRoutes)], ['host']);
    for (const role of Role.options) assert.ok(!roles(agentRoutes).has(role) && !roles(reportRoutes).has(role));
  });

  it('the OpenAPI document says it of every route', () => {
    type Described = Record<string, { operationId: string; 'x-role'?: string; security?: []; description: string }>;
    const { paths } = openApi(controllerRoutes, { title: '', version: '', description: '' }) as {
      paths: Record<string, Described>;
    };
    const described = Object.values(paths).flatMap(path => Object.values(path));
    assert.equal(described.length, ROUTES.length);
    for (const one of described) {
      const { role } = controllerRoutes[one.operationId as keyof typeof controllerRoutes];
      assert.equal(one['x-role'] ?? 'anyone', role, one.operationId);
      assert.match(one.description, role === 'anyone' ? /Needs no token/ : new RegExp(`Needs the role ${role}`));
    }
  });
});
