import assert from 'node:assert/strict';
import { CisternError } from '../../shared/errors.ts';
import { startTestController, type TestController } from './cli-controller.ts';
import { cli, envFor, startCli } from './cli-run.ts';
import { samples, TOKEN } from './cli-samples.ts';

describe('cistern: what commands', () => {
  let controller: TestController;
  before(async () => void (controller = await startTestController()));
  after(() => controller[Symbol.asyncDispose]());

  it('print the ids that the API has as names', async () => {
    const { stdout } = await cli(controller, 'volume', 'list');
    assert.match(stdout, /web-1\s+root\s+ready\s+10\.0 GiB\s+192\.0 KiB\s+fast\s+kvm1\s+debian12/);
    assert.match((await cli(controller, 'image', 'show', 'debian12')).stdout, /replica\s+shelf \(ready\)/);
  });

  it('print a list in JSON as the array of all pages', async () => {
    const names = Array.from({ length: 5 }, (_, i) => `v${i}`);
    await using paged = await startTestController({
      listVolumes: ({ query }) => {
        const from = Number(query.cursor ?? 0);
        const to = Math.min(from + Math.min(2, query.limit), names.length);
        return {
          items: names.slice(from, to).map(name => ({ ...samples.volume, name })),
          next: to < names.length ? String(to) : null,
        };
      },
    });
    const all = await cli(paged, 'volume', 'list', '--output', 'json');
    assert.deepEqual(
      (JSON.parse(all.stdout) as { name: string }[]).map(volume => volume.name),
      names,
    );
    assert.equal(all.stderr, '');
    const some = await cli(paged, 'volume', 'list', '--output', 'json', '--limit', '3');
    assert.deepEqual(
      (JSON.parse(some.stdout) as { name: string }[]).map(volume => volume.name),
      names.slice(0, 3),
    );
    assert.match(some.stderr, /more than 3: raise --limit/);
  });

  it('send the token as a bearer and say what to do when it is refused', async () => {
    await cli(controller, 'host', 'list');
    assert.equal(controller.last('listHosts').headers.authorization, `Bearer ${TOKEN}`);
    const refused = startCli(['host', 'list'], { ...envFor(controller), CISTERN_TOKEN: 'wrong' });
    assert.equal(await refused.code, 1);
    assert.match(
      refused.stderr(),
      /^cistern: The bearer token is missing or wrong \(UNAUTHORIZED\)\n.*\nWhat to do: Send "Authorization/,
    );
    assert.equal(refused.stdout(), '');
  });

  it('end with 2 and a hint on wrong usage, before anything is asked of the controller', async () => {
    const before = controller.seen.length;
    const wrong: [string[], RegExp][] = [
      [['hots'], /unknown command 'hots'\n\(Did you mean host\?\)/],
      [['image', 'impotr', 'x'], /Did you mean import\?/],
      [['volume', 'list', '--kimd', 'root'], /unknown option '--kimd'\n\(Did you mean --kind\?\)/],
      [['volume', 'create', 'x'], /needs --size/],
      [['volume', 'create', 'x', '--size', '10GB'], /write 10G or 10GiB/],
      [['volume', 'resize', 'x', 'large'], /size "large" is not valid/],
      [['image', 'import', 'x'], /one of --url, --file and --object/],
      [['image', 'import', 'x', '--url', 'http://a', '--file', 'b'], /one of --url, --file and --object/],
      [['image', 'import', 'x', '--object', 'vault'], /BACKUP_STORAGE:PATH/],
      [['image', 'import', 'x', '--file', '-', '--no-wait'], /--no-wait does not go with --file/],
      [['image', 'cache', 'add', 'x'], /--primary-storage/],
      [['host', 'update', 'x'], /nothing to change/],
      [['host', 'add', 'x', '--agent-token-file', '/x'], /without the address of the agent/],
      [['host', 'list', '--output', 'yaml'], /table, json/],
      [['host'], /Usage: cistern host/],
      [['backup-storage', 'add', 'x', '--type', 'sftp', '--set', 'password=hunter2'], /--set-file password=PATH/],
    ];
    for (const [line, hint] of wrong) {
      const { code, stderr } = await cli(controller, ...line);
      assert.equal(code, 2, line.join(' '));
      assert.match(stderr, hint);
      assert.doesNotMatch(stderr, /hunter2/);
    }
    assert.equal(controller.seen.length, before);
  });

  it('take the address of the controller before the noun, or after the verb where the verb has no --url of its own', async () => {
    const env = { ...envFor(controller), CISTERN_URL: 'http://127.0.0.1:1' };
    assert.equal(await startCli(['host', 'list', '--url', controller.url], env).code, 0);
    assert.equal(await startCli(['--url', controller.url, 'image', 'import', 'x', '--url', 'http://example.org/x'], env).code, 0);
    const { source } = controller.last('importImage').body as { source: unknown };
    assert.deepEqual(source, { type: 'url', url: 'http://example.org/x' });
  });

  it('print the problem of the controller word by word', async () => {
    await using full = await startTestController({
      createVolumes: () => {
        throw new CisternError('NO_CAPACITY', 'volume "web" of 20 GiB: fast has 3 GiB left', {
          action: 'Empty the trash of fast.',
        });
      },
    });
    const { code, stderr } = await cli(full, 'volume', 'create', 'web', '--size', '20G');
    assert.equal(code, 1);
    assert.equal(
      stderr,
      'cistern: There is not enough room (NO_CAPACITY)\nvolume "web" of 20 GiB: fast has 3 GiB left\nWhat to do: Empty the trash of fast.\n',
    );
  });

  it('say where nothing answers', async () => {
    const { code, stderr } = await cli({ url: 'http://127.0.0.1:1' }, 'host', 'list');
    assert.equal(code, 1);
    assert.match(
      stderr,
      /CONTROLLER_UNREACHABLE\)\nGET http:\/\/127\.0\.0\.1:1\/api\/v1\/hosts: .*\nWhat to do: Check that cistern-controller runs/,
    );
    const version = await cli({ url: 'http://127.0.0.1:1' }, 'version');
    assert.equal(version.code, 0);
    assert.match(version.stdout, /cistern\s+\d+\.\d+\.\d+\ncontroller\s+no answer/);
  });
});
