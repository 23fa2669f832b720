/** Where two spellings would mean one thing, only one of them is taken, or both become the same. */
import assert from 'node:assert/strict';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { hostRoutes } from '../../shared/contract/hosts.ts';
import { fillPath } from '../../shared/http/client.ts';
import { newId } from '../../shared/id.ts';
import { Id } from '../../shared/model.ts';

describe('one spelling for one thing', () => {
  it('ids are lower-case: another spelling would name a second folder, lock or row', () => {
    const id = newId();
    assert.equal(Id.parse(id), id);
    const others = [
      id.toUpperCase(),
      id.replace('7', '７'), // a full-width digit
      `{${id}}`,
      `urn:uuid:${id}`,
      id.replaceAll('-', ''),
      ` ${id}`,
      `${id}\n`,
      `${id}\0`,
      `${id}/..`,
    ];
    for (const other of others) assert.equal(Id.safeParse(other).success, false, JSON.stringify(other));
  });

  it('a task, and what it works on, is not taken under an id in capitals', () => {
    const [task, pool] = ['0198f1b2-aaaa-7000-8000-00000000000a', '0198f1b2-bbbb-7000-8000-00000000000b'];
    const body = (id: string, poolId: string) =>
      agentRoutes.createTask.body.safeParse({
        id,
        command: { kind: 'pool.usage', input: { pool: { id: poolId, type: 'local', config: {} } } },
      }).success;
    assert.deepEqual([body(task, pool), body(task.toUpperCase(), pool), body(task, pool.toUpperCase())], [true, false, false]);
  });

  it('the address of an agent is kept in one way, and holds nothing but the address', () => {
    const read = (url: string) =>
      hostRoutes.addHost.body.safeParse({ name: 'host', url, token: 'a token that is long enough' }).data?.url;
    for (const url of ['HTTP://Agent.Example:80', 'http://agent.example/', 'http://agent.example:80/x/..'])
      assert.equal(read(url), 'http://agent.example/');
    for (const url of ['http://[0:0::0:1]:7071', 'http://[::1]:7071/']) assert.equal(read(url), 'http://[::1]:7071/');
    for (const url of ['http://127.1:7071', 'http://0x7f000001:7071']) assert.equal(read(url), 'http://127.0.0.1:7071/');
    for (const url of [
      'http://name:word@agent.example',
      'http://agent.example/?a=b',
      'http://agent.example/#a',
      'ftp://agent.example',
    ])
      assert.equal(read(url), undefined, url);
  });

  it('a name in a path stays one name: what a URL would resolve to another path is not sent', () => {
    for (const ref of ['', '.', '..'])
      assert.throws(() => fillPath('/api/v1/volumes/:ref/resize', { ref }), { name: 'CisternError', code: 'BAD_REQUEST' });
    for (const ref of ['...', '../x', '%2e%2e', 'a/b', '?', '#', '\ud800']) {
      const { pathname } = new URL(fillPath('/api/v1/volumes/:ref/resize', { ref }), 'http://agent');
      assert.match(pathname, /^\/api\/v1\/volumes\/[^/]+\/resize$/, ref);
      assert.equal(decodeURIComponent(pathname.split('/')[4]!), ref.toWellFormed());
    }
  });
});
