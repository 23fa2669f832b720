/**
 * Hostile strings in every field of every command, sent to a real agent that works on real pools and stores: nothing beside them is
 * made, changed or removed, and no string becomes an option, a shell's words or, where it is secret, visible.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { COMMANDS } from '../../shared/commands/index.ts';
import { newId } from '../../shared/id.ts';
import { CisternError, ERRORS } from '../../shared/errors.ts';
import { isFinal, type TaskReport } from '../../shared/task.ts';
import { AgentProcess } from '../e2e/agent-process.ts';
import { makeDisk, MiB, until } from '../e2e/house.ts';
import { startImageServer } from '../servers/http-image-server.ts';
import { startSshd, type TestSshd } from '../servers/sshd.ts';
import { FOLDERS, type Request, requests, secret, type World } from './paths/agent-requests.ts';
import { hostileStrings, spoil, stringsOf } from './paths/hostile.ts';
import { type GuardedPlace, guardedPlace } from './paths/place.ts';
import { type Recorder, recorder } from './paths/recorder.ts';

const RUNS = 60;
const AT_ONCE = 5;
const KINDS: string[] = COMMANDS.map(({ kind }) => kind);
/** Each has a process of its own. */
const POOLS = 5;
const OURS = ['agent', 'bin', 'mounts', 'pools', 'stores', 'web', 'server'];

/** Every option that the agent gives to a program. */
const OPTIONS = new Set([
  ...['--', '-n', '--net', '-q', '-p', '-O', '-f', '-F', '-o', '-b', '-u', '-U', '-c', '-W', '-m', '--output=json'],
  ...['--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-user', '--unshare-net', '--die-with-parent', '--new-session'],
  ...['--ro-bind', '--ro-bind-fd', '--bind', '--bind-fd', '--dev-bind', '--symlink', '--dir', '--remount-ro', '--chdir'],
  ...['--clear-groups', '--inh-caps=-all', '--no-new-privs', '--version', '--internal-only', '-t', '--no-canonicalize'],
  ...['-T', '-a', '-x', '-e', '-l', '-i', '-s', '--file-system', '--fork'],
]);
const NUMBERED = /^--(core|as|cpu|fsize|nproc|reuid|regid)=\d+$|^--bounding-set=-all(,\+dac_override,\+dac_read_search)?$/;
/** What may follow `-o`: options of nfs(5) that are allowed, of ssh_config(5), and of qemu-img. */
const SETTINGS =
  /^vers=[\d.]+(,[a-z_]+(=\w+)?)*,nosuid,nodev,noexec$|^[A-Z]\w+=[^-]|^extended_l2=on,cluster_size=128k$|^compression_type=zstd$/;

describe('hostile requests to an agent', () => {
  let stack: AsyncDisposableStack;
  let place: GuardedPlace;
  let recorded: Recorder;
  let agent: AgentProcess;
  let sshd: TestSshd;
  let world: World;
  let disk: Buffer;
  const sent = new Set<string>();

  before(async function () {
    this.timeout(180_000);
    stack = new AsyncDisposableStack();
    place = stack.use(guardedPlace([...OURS, 'pools/a', 'stores/a']));
    recorded = recorder(place.at('bin'));
    sshd = stack.use(await startSshd({ path: place.at('server/root') }));
    const web = stack.use(await startImageServer(place.at('web')));
    disk = readFileSync(await makeDisk(place.at('web/disk.raw'), 2 * MiB, 'paths'));
    const settings = { mountDir: place.at('mounts'), importAllow: ['127.0.0.1'], stallSeconds: 5 };
    const env = { ...process.env, PATH: recorded.path, HOME: place.at('home') };
    agent = stack.use(await AgentProcess.start(place.at('agent'), settings, { cwd: place.at('home'), env }));

    const { host, port, user, hostKey, privateKey, path } = sshd;
    const folders = ['a', ...FOLDERS];
    const pools = folders.map(name => ({ id: newId(), type: 'local', config: { path: place.at('pools', name) } }));
    const stores = folders.map(name => ({ id: newId(), type: 'dir', config: { path: place.at('stores', name) } }));
    for (const { config } of stores) mkdirSync(config.path, { recursive: true });
    for (const pool of pools.slice(0, POOLS)) await succeed('pool.connect', { pool, initialize: true });
    const image = { id: newId(), format: 'qcow2' as const };
    const source = { type: 'upload', size: disk.length };
    const published = await succeed('image.import', { image, source, sourceFormat: null, expectedSha256: null, stores });
    const { digest } = published.output as { digest: string };
    for (const [i, pool] of pools.slice(0, POOLS).entries())
      await succeed('cache.fill', { pool, image: { ...image, digest }, stores: [stores[i]] });
    const volume = { id: newId(), layerId: newId() };
    for (const pool of pools.slice(0, POOLS))
      await succeed('volume.create', { pool, volumes: [volume], size: 8 * MiB, backing: null });
    const sftp = { host, port, user, hostKey, privateKey, path };
    await succeed('store.connect', { store: { id: newId(), type: 'sftp', config: sftp } });
    const nfs = { server: '127.0.0.1', export: '/-o', options: ['hard'] };
    await carryOut({ id: newId(), command: { kind: 'pool.scan', input: { pool: { id: newId(), type: 'nfs', config: nfs } } } });
    world = {
      volume,
      pools: pools.slice(0, POOLS),
      stores,
      sftp,
      image: { id: image.id, digest },
      web: web.url,
      hostile: hostileStrings({ file: place.at('precious'), trap: place.at('trap') }),
    };
  });
  after(() => stack.disposeAsync());

  async function succeed(kind: string, input: unknown): Promise<TaskReport> {
    const report = await carryOut({ id: newId(), command: { kind, input } });
    assert.ok(typeof report !== 'string' && report.state === 'succeeded', JSON.stringify(report));
    return report;
  }

  /** The task at its end, or the code with which it was refused. */
  async function carryOut(request: Request): Promise<TaskReport | string> {
    try {
      const { id } = await agent.client.createTask({ body: request as never });
      const { source } = request.command.input as { source?: { type?: unknown } };
      if (source?.type === 'upload') await upload(id);
      return await until(`the end of ${request.command.kind}`, async () => {
        const task = await agent.client.getTask({ params: { id } });
        return isFinal(task.state) && task;
      });
    } catch (error) {
      assert.ok(error instanceof CisternError, String(error));
      return error.code;
    }
  }

  /** Sends what the task waits for; where that is refused, the task need not wait any longer. */
  async function upload(id: string): Promise<void> {
    await agent.client
      .putTaskInput({ params: { id } }, { stream: Readable.from([disk]), length: disk.length })
      .catch(async error => {
        assert.ok(error instanceof CisternError, String(error));
        await agent.client.cancelTask({ params: { id } });
      });
  }

  it('change nothing beside its pools and stores, and each is carried out or refused with a code', async function () {
    this.timeout(150_000);
    const seed = Number(process.env['CISTERN_SEED'] ?? randomInt(2 ** 31));
    const before = place.guarded();
    const tally: Record<string, Record<string, number>> = {};
    const count = (kind: string, how: string): void => {
      const row = (tally[kind] ??= {});
      row[how] = (row[how] ?? 0) + 1;
    };
    const kinds = requests(world);
    const one = fc.oneof(...kinds.map(kind => spoil(kind, world.hostile))) as fc.Arbitrary<Request>;
    const property = fc.asyncProperty(fc.array(one, { minLength: AT_ONCE, maxLength: AT_ONCE }), async batch => {
      for (const text of stringsOf(batch)) sent.add(text);
      const ends = await Promise.all(batch.map(carryOut));
      for (const [i, end] of ends.entries()) {
        const code = typeof end === 'string' ? end : end.error?.code;
        const { kind } = batch[i]!.command;
        count(KINDS.includes(kind) ? kind : 'of no kind', code ?? 'succeeded');
        assert.ok(code === undefined || (code in ERRORS && code !== 'INTERNAL'), JSON.stringify([batch[i], end]));
        assert.ok(typeof end === 'string' || isFinal(end.state));
      }
      assert.deepEqual(place.guarded(), before);
      assert.deepEqual(['/trap', '/escaped', '/precious'].filter(existsSync), [], 'programs start in /');
      assert.deepEqual(await agent.client.healthz(), { status: 'ok' });
      assert.equal(agent.child.exitCode, null);
    });
    await fc.assert(property, { seed, numRuns: RUNS, endOnFailure: true });
    const lines = Object.entries(tally).map(([kind, row]) => `${kind}: ${JSON.stringify(row)}`);
    console.log(`      CISTERN_SEED=${seed}: ${RUNS * AT_ONCE} requests\n        ${lines.sort().join('\n        ')}`);
    assert.ok(
      Object.values(tally).some(row => (row['succeeded'] ?? 0) > 0),
      'some of it was done',
    );
    assert.deepEqual(
      agent.log.filter(line => /failed unexpectedly|"level":(50|60)/.test(line)),
      [],
    );
  });

  it('make no string of theirs an option, none the words of a shell, and show no secret in an argv', () => {
    const argvs = recorded.started();
    const programs = new Set(argvs.flatMap(words => words.filter((_word, i) => i === 0 || words[i - 1] === '--')));
    for (const name of ['qemu-img', 'prlimit', 'ssh', 'mount.nfs'])
      assert.ok(programs.has(name), `no ${name} was started, but ${[...programs].join(' ')}`);
    for (const name of ['sh', 'bash', 'dash']) assert.ok(!programs.has(name), `${name} was started`);
    assert.ok([...sent].filter(text => /^-./s.test(text)).length > 3, 'strings like options were sent');
    for (const words of argvs) {
      const shown = JSON.stringify(words);
      assert.ok(!shown.includes(secret) && !shown.includes('PRIVATE KEY'), `a secret is in the argv of ${words[0]}`);
      const last = words.lastIndexOf('--');
      const before = last < 0 ? words : words.slice(0, last);
      for (const word of before.filter(one => one.startsWith('-')))
        assert.ok(OPTIONS.has(word) || NUMBERED.test(word), `${word} in ${shown}`);
      for (const [i, word] of before.entries()) if (before[i - 1] === '-o') assert.match(word, SETTINGS, shown);
    }
    const names = [...programs].filter(name => /^[a-z.-]+$/.test(name));
    console.log(`      ${argvs.length} programs were started: ${names.join(' ')}`);
  });
});
