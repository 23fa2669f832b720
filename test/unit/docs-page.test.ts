import assert from 'node:assert/strict';
import { docsPage } from '../../controller/api/docs.ts';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { ERRORS } from '../../shared/errors.ts';
import { openApi } from '../../shared/http/openapi.ts';

describe('docs page', () => {
  const page = docsPage(
    openApi(controllerRoutes, { title: 'cistern', version: '1.2.3', description: 'storage `plane` <for> hosts' }),
  );

  it('tells every route with its method, path and summary', () => {
    for (const [name, route] of Object.entries(controllerRoutes)) {
      const article = page.split(`<article id="${name}">`)[1]?.split('</article>')[0];
      assert.ok(article, `no article for ${name}`);
      assert.ok(article.includes(`>${route.method.toUpperCase()}</b>`), name);
      assert.ok(article.includes(`<code>${route.path.replace(/:(\w+)/g, '{$1}')}</code>`), name);
      assert.ok(article.includes('curl -sS'), name);
    }
  });

  it('tells every error code with its title and what to do', () => {
    for (const [code, kind] of Object.entries(ERRORS)) {
      const row = page.split(`<tr id="error-${code}">`)[1]?.split('</tr>')[0] ?? '';
      assert.ok(row.includes(`<code>${code}</code>`) && row.includes(`<td>${kind.status}</td>`), code);
    }
  });

  it('leads nowhere but to itself: each link has its target, and nothing is loaded', () => {
    const targets = [...page.matchAll(/href="#([^"]+)"/g)].map(m => m[1]!);
    const ids = new Set([...page.matchAll(/ id="([^"]+)"/g)].map(m => m[1]!));
    assert.ok(targets.length > 50);
    assert.deepEqual(
      targets.filter(target => !ids.has(target)),
      [],
    );
    assert.doesNotMatch(page, /<script|<link|<img|@import|url\(/);
  });

  it('shows the words of the document as text, never as markup', () => {
    assert.ok(page.includes('storage <code>plane</code> &lt;for&gt; hosts'));
  });

  it('gives examples that the contract accepts', () => {
    const bodies = [...page.matchAll(/<article id="(\w+)">(?:(?!<\/article>)[\s\S])*?-d &#39;(.*?)&#39;<\/pre>/g)];
    assert.ok(bodies.length >= 15);
    for (const [, name, json] of bodies) {
      const body: unknown = JSON.parse(json!.replaceAll('&quot;', '"').replaceAll('&#39;', "'"));
      const route = controllerRoutes[name as 'createVolumes'];
      const parsed = route.body.safeParse(name === 'addHost' ? { ...(body as object), token: 'x'.repeat(16) } : body);
      assert.ok(parsed.success, `${name}: ${json}: ${parsed.error?.message}`);
    }
  });
});
