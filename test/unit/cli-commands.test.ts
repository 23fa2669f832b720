import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeCommands } from '../../controller/cli/completion.ts';
import { buildProgram } from '../../controller/cli/program.ts';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { type RouteName, startTestController, type TestController } from './cli-controller.ts';
import { cli, startCli } from './cli-run.ts';
import { ids } from './cli-samples.ts';

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
      ['host', 'add', 'kvm1', 'http://127.0.0.1:7071', '--agent-token-file', tokenFile],
      { body: { name: 'kvm1', url: 'http://127.0.0.1:7071/', token: 'token-of-the-agent', cluster: 'default' } },
    ],
    ['inviteHost', ['host', 'add', 'kvm1'], { body: { name: 'kvm1', cluster: 'default' } }],
    ['rejoinHost', ['host', 'rejoin', 'kvm1'], { params: { ref: 'kvm1' } }],
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
    ['updateBackupStorage', ['backup-storage', 'update', 'shelf', '--bandwidth', '200M', '--transfers', 'none'], { body: { limits: { bytesPerSecond: 200 * 2 ** 20, transfers: null } } }], // prettier-ignore
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
    ['replicateImage', ['image', 'replicate', 'debian12', '--to', 'vault', '--to', 'shelf', '--host', 'kvm1'], { params: { ref: 'debian12' }, body: { backupStorages: ['vault', 'shelf'], host: 'kvm1' } }], // prettier-ignore
    ['deleteReplica', ['image', 'replica', 'delete', 'debian12', 'vault'], { params: { ref: 'debian12', store: 'vault' } }],
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
    [
      'scanPrimaryStorage',
      ['primary-storage', 'scan', 'fast', '--adopt'],
      { params: { ref: 'fast' }, body: { adopt: true, check: false, repair: false } },
    ],
    [
      'maintainPrimaryStorage',
      ['primary-storage', 'maintain', 'fast', '--cancel', '--deadline', '60'],
      { params: { ref: 'fast' }, body: { cancel: true, deadlineSeconds: 60 } },
    ],
    [
      'migrateVolume',
      ['volume', 'migrate', 'web-1', 'shared', '--host', 'kvm1'],
      { params: { ref: 'web-1' }, body: { primaryStorage: 'shared', host: 'kvm1', flatten: false } },
    ],
    ['scanBackupStorage', ['backup-storage', 'scan', 'vault', '--adopt'], { params: { ref: 'vault' }, body: { adopt: true } }],
    ['validateBackupStorage', ['backup-storage', 'validate', 'vault'], { params: { ref: 'vault' } }],
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
});
