import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeCommands } from '../../controller/cli/completion.ts';
import { buildProgram } from '../../controller/cli/program.ts';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { CisternError } from '../../shared/errors.ts';
import {
  cli,
  envFor,
  ids,
  type RouteName,
  samples,
  startCli,
  startTestController,
  type TestController,
  TOKEN,
} from './cli-controller.ts';

describe('cistern: commands', () => {
  let controller: TestController;
  const dir = mkdtempSync(join(tmpdir(), 'cistern-cli-'));
  const tokenFile = join(dir, 'agent.token');
  before(async () => {
    controller = await startTestController();
    writeFileSync(tokenFile, 'token-of-the-agent\n');
  });
  after(async () => {
    await controller[Symbol.asyncDispose]();
    rmSync(dir, { recursive: true });
  });

  /** Every command once, with the route that it is for and what that must have been told. */
  const lines: [RouteName, string[], object?][] = [
    [
      'listHosts',
      ['host', 'list', '--cluster', 'default', '--status', 'connected'],
      { query: { limit: 1000, cluster: 'default', status: 'connected' } },
    ],
    ['getHost', ['host', 'show', 'kvm1'], { params: { ref: 'kvm1' } }],
    [
      'addHost',
      ['host', 'add', 'kvm1', 'http://10.0.0.11:7071', '--agent-token-file', tokenFile],
      { body: { name: 'kvm1', url: 'http://10.0.0.11:7071', token: 'token-of-the-agent', cluster: 'default' } },
    ],
    [
      'updateHost',
      ['host', 'update', 'kvm1', '--state', 'maintenance'],
      { params: { ref: 'kvm1' }, body: { state: 'maintenance' } },
    ],
    ['reconnectHost', ['host', 'reconnect', 'kvm1'], { params: { ref: 'kvm1' } }],
    ['removeHost', ['host', 'remove', 'kvm1'], { params: { ref: 'kvm1' } }],
    ['listClusters', ['cluster', 'list']],
    ['getCluster', ['cluster', 'show', 'default']],
    ['createCluster', ['cluster', 'create', 'east'], { body: { name: 'east' } }],
    ['deleteCluster', ['cluster', 'delete', 'east'], { params: { ref: 'east' } }],
    ['listPrimaryStorages', ['primary-storage', 'list', '--type', 'nfs']],
    ['getPrimaryStorage', ['primary-storage', 'show', 'fast']],
    [
      'addPrimaryStorage',
      [
        'primary-storage',
        'add',
        'fast',
        '--type',
        'local',
        '--set',
        'path=/pool',
        '--set',
        'big=true',
        '--cluster',
        'a',
        '--cluster',
        'b',
        '--overcommit',
        '1.5',
      ],
      { body: { name: 'fast', type: 'local', config: { path: '/pool', big: true }, clusters: ['a', 'b'], overcommit: 1.5 } },
    ],
    ['updatePrimaryStorage', ['primary-storage', 'update', 'fast', '--name', 'faster'], { body: { name: 'faster' } }],
    [
      'attachPrimaryStorage',
      ['primary-storage', 'attach', 'fast', 'east'],
      { params: { ref: 'fast' }, body: { cluster: 'east' } },
    ],
    [
      'detachPrimaryStorage',
      ['primary-storage', 'detach', 'fast', 'east'],
      { params: { ref: 'fast' }, body: { cluster: 'east' } },
    ],
    ['refreshPrimaryStorage', ['primary-storage', 'refresh', 'fast']],
    ['deletePrimaryStorage', ['primary-storage', 'delete', 'fast']],
    ['listBackupStorages', ['backup-storage', 'list']],
    ['getBackupStorage', ['backup-storage', 'show', 'shelf']],
    [
      'addBackupStorage',
      [
        'backup-storage',
        'add',
        'vault',
        '--type',
        'sftp',
        '--set',
        'host=vault1',
        '--set',
        'port=2222',
        '--set-file',
        `password=${tokenFile}`,
      ],
      { body: { name: 'vault', type: 'sftp', config: { host: 'vault1', port: 2222, password: 'token-of-the-agent' } } },
    ],
    ['updateBackupStorage', ['backup-storage', 'update', 'shelf', '--state', 'disabled'], { body: { state: 'disabled' } }],
    ['refreshBackupStorage', ['backup-storage', 'refresh', 'shelf']],
    ['deleteBackupStorage', ['backup-storage', 'delete', 'shelf']],
    [
      'listImages',
      ['image', 'list', '--media', 'iso', '--backup-storage', 'shelf'],
      { query: { limit: 1000, media: 'iso', backupStorage: 'shelf' } },
    ],
    ['getImage', ['image', 'show', 'debian12']],
    [
      'importImage',
      [
        'image',
        'import',
        'debian12',
        '--url',
        'https://example.org/d.qcow2',
        '--sha256',
        'A'.repeat(64),
        '--backup-storage',
        'shelf',
      ],
      {
        body: {
          name: 'debian12',
          media: 'root',
          format: 'qcow2',
          source: { type: 'url', url: 'https://example.org/d.qcow2' },
          sha256: 'a'.repeat(64),
          backupStorages: ['shelf'],
        },
      },
    ],
    [
      'importImage',
      [
        'image',
        'import',
        'old',
        '--object',
        'vault:a/b:c.raw',
        '--source-format',
        'raw',
        '--format',
        'raw',
        '--media',
        'data',
        '--host',
        'kvm1',
      ],
      {
        body: {
          name: 'old',
          media: 'data',
          format: 'raw',
          source: { type: 'object', backupStorage: 'vault', path: 'a/b:c.raw' },
          sourceFormat: 'raw',
          backupStorages: [],
          host: 'kvm1',
        },
      },
    ],
    ['uploadImage', ['image', 'import', 'mine', '--file', tokenFile], { params: { ref: ids.image } }],
    ['renameImage', ['image', 'rename', 'debian12', 'debian13'], { body: { name: 'debian13' } }],
    ['verifyImage', ['image', 'verify', 'debian12']],
    ['deleteImage', ['image', 'delete', 'debian12']],
    ['listCache', ['image', 'cache', 'list', '--primary-storage', 'fast'], { query: { limit: 1000, primaryStorage: 'fast' } }],
    ['addToCache', ['image', 'cache', 'add', 'debian12', '--primary-storage', 'fast'], { body: { image: 'debian12', primaryStorage: 'fast' } }], // prettier-ignore
    ['verifyCache', ['image', 'cache', 'verify', 'debian12', '--primary-storage', 'fast'], { body: { image: 'debian12', primaryStorage: 'fast' } }], // prettier-ignore
    ['evictFromCache', ['image', 'cache', 'evict', 'debian12', '--primary-storage', 'fast', '--host', 'kvm1'], { body: { image: 'debian12', primaryStorage: 'fast', host: 'kvm1' } }], // prettier-ignore
    ['listVolumes', ['volume', 'list', '--image', 'debian12', '--kind', 'root']],
    ['getVolume', ['volume', 'show', 'web-1']],
    [
      'createVolumes',
      [
        'volume',
        'create',
        'web',
        '--image',
        'debian12',
        '--size',
        '20G',
        '--count',
        '3',
        '--primary-storage',
        'fast',
        '--host',
        'kvm1',
        '--kind',
        'root',
      ],
      {
        body: {
          name: 'web',
          kind: 'root',
          image: 'debian12',
          size: 20 * 2 ** 30,
          count: 3,
          primaryStorage: 'fast',
          host: 'kvm1',
        },
      },
    ],
    ['updateVolume', ['volume', 'rename', 'web-1', 'web-2'], { body: { name: 'web-2' } }],
    ['resizeVolume', ['volume', 'resize', 'web-1', '1.5TiB'], { body: { size: 1.5 * 2 ** 40 } }],
    [
      'uploadVolume',
      ['volume', 'upload', 'web-1', 'golden', '--compress', '--format', 'raw', '--media', 'data'],
      { body: { name: 'golden', media: 'data', format: 'raw', compress: true, backupStorages: [] } },
    ],
    ['deleteVolume', ['volume', 'delete', 'web-1'], { params: { ref: 'web-1' } }],
    ['listTokens', ['token', 'list']],
    ['createToken', ['token', 'create', 'ci', '--role', 'operator'], { body: { name: 'ci', role: 'operator' } }],
    ['deleteToken', ['token', 'delete', 'ci'], { params: { ref: 'ci' } }],
    ['deleteVolumes', ['volume', 'delete', 'web-1', 'web-2'], { body: { volumes: ['web-1', 'web-2'] } }],
    ['listTrash', ['trash', 'list']],
    ['emptyTrash', ['trash', 'empty', '--primary-storage', 'fast'], { body: { primaryStorage: 'fast' } }],
    ['listOperations', ['operation', 'list', '--state', 'failed', '--limit', '5'], { query: { limit: 5, state: 'failed' } }],
    ['getOperation', ['operation', 'show', ids.operation]],
    ['getOperation', ['operation', 'wait', ids.operation]],
    ['cancelOperation', ['operation', 'cancel', ids.operation]],
    ['retryOperation', ['operation', 'retry', ids.operation]],
    ['listEvents', ['event', 'list', '--after', '3'], { query: { limit: 1000, after: 3 } }],
    ['scanPrimaryStorage', ['primary-storage', 'scan', 'fast'], { params: { ref: 'fast' } }],
    ['scanBackupStorage', ['backup-storage', 'scan', 'vault'], { params: { ref: 'vault' } }],
    ['getController', ['controller', 'show']],
    ['resumeController', ['controller', 'resume']],
    ['healthz', ['status']],
    ['healthz', ['version']],
  ];

  for (const [route, line, told] of lines) {
    it(`${line.slice(0, 3).join(' ')} asks for ${route}, and prints a table or JSON`, async () => {
      const { code, stdout, stderr } = await cli(controller, ...line);
      assert.equal(code, 0, stderr);
      assert.ok(stdout.length > 0);
      const request = controller.last(route);
      for (const [part, value] of Object.entries(told ?? {})) assert.deepEqual(request[part as 'body'], value);
      const json = await cli(controller, ...line, '--output', 'json');
      assert.doesNotThrow(() => JSON.parse(json.stdout) as unknown, json.stdout);
    });
  }

  it('reach every route of the API', () => {
    const others = ['metrics', 'discovery', 'openapi', 'docs', 'operationEvents'];
    const reached = new Set<string>(lines.map(([route]) => route));
    assert.deepEqual(
      Object.keys(controllerRoutes).filter(route => !reached.has(route) && !others.includes(route)),
      [],
    );
  });

  it('are all in the list above', () => {
    const runtime = { io: startCli(['--version'], {}), finish: () => undefined, examples: new Map() };
    const program = buildProgram(runtime as never);
    const verbs = describeCommands(program)
      .filter(shape => shape.subcommands.length === 0)
      .map(shape => shape.path);
    const listed = new Set(lines.map(([, line]) => line));
    const missing = verbs.filter(verb => ![...listed].some(line => line.join(' ').startsWith(verb)));
    assert.deepEqual(missing, ['completion']);
  });

  it('explain themselves with an example each', async () => {
    const program = buildProgram({ io: startCli(['--version'], {}) as never, finish: () => undefined, examples: new Map() });
    for (const { path } of describeCommands(program)) {
      const { code, stdout } = await cli(controller, ...path.split(' ').filter(Boolean), '--help');
      assert.equal(code, 0, path);
      assert.match(stdout, /Examples:\n {2}cistern /, path);
    }
  });

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
      [['host', 'add', 'x', 'http://a'], /--agent-token-file/],
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
