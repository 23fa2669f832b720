import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { CommandMessage } from '../../shared/commands/index.ts';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { createClient } from '../../shared/http/client.ts';
import { newId } from '../../shared/id.ts';
import { isFinal, type ReportBatch } from '../../shared/task.ts';
import { AgentProcess, reportReceiver, silentServer, until } from './agent-process.ts';

const SECRET = 'MARKER-SECRET-7f3a';
const HOST_KEY = `ssh-ed25519 ${Buffer.concat([Buffer.from('0000000b7373682d6564323535313900000020', 'hex'), Buffer.alloc(32, 7)]).toString('base64')}`;
/** Nothing listens on it (tcpmux). */
const unusedPort = 1;
const SETTINGS = { importAllow: ['127.0.0.1'] };
const failsWith = (code: ErrorCode) => (error: unknown) => error instanceof CisternError && error.code === code;

describe('the agent', () => {
  let folder: string;
  let agent: AgentProcess;
  let silent: Awaited<ReturnType<typeof silentServer>>;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'cistern-agent-'));
    silent = await silentServer();
    agent = await AgentProcess.start(folder, SETTINGS);
  });
  afterEach(async () => {
    await agent.stop();
    await silent[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const send = (command: CommandMessage, id = newId()) => agent.client.createTask({ body: { id, command } });
  const done = async (command: CommandMessage) => agent.ended((await send(command)).id);

  /** A connected local pool. */
  async function makePool(name: string) {
    const path = join(folder, name);
    mkdirSync(path);
    const pool = { id: newId(), type: 'local', config: { path } };
    const connected = await done({ kind: 'pool.connect', input: { pool, initialize: true } });
    assert.equal(connected.state, 'succeeded', connected.error?.detail);
    return { pool, path };
  }

  const create = (pool: { id: string; type: string; config: Record<string, unknown> }): CommandMessage => ({
    kind: 'volume.create',
    input: { pool, volumes: [{ id: newId(), layerId: newId() }], size: 2 ** 20, backing: null },
  });

  const store = (type: string, config: Record<string, unknown>) => ({ id: newId(), type, config });
  const sftp = (port: number) =>
    store('sftp', { host: '127.0.0.1', port, user: 'store', path: '/images', password: SECRET, hostKey: HOST_KEY });
  const dirStore = () => {
    const path = join(folder, newId());
    mkdirSync(path);
    return store('dir', { path });
  };

  /** Work on the pool that lasts: its backup storage never says a word. */
  const fill = (pool: Parameters<typeof create>[0], port = silent.port): CommandMessage => ({
    kind: 'cache.fill',
    input: { pool, image: { id: newId(), format: 'qcow2', digest: '0'.repeat(64) }, stores: [sftp(port)] },
  });

  type Source = Extract<CommandMessage, { kind: 'image.import' }>['input']['source'];
  const importFrom = (source: Source): CommandMessage => ({
    kind: 'image.import',
    input: {
      image: { id: newId(), format: 'qcow2' },
      source,
      sourceFormat: 'raw',
      expectedSha256: null,
      stores: [dirStore()],
    },
  });
  const upload = (size: number | null) => importFrom({ type: 'upload', size });
  /** Work of the host that lasts: the image server never answers. */
  const fetching = () => importFrom({ type: 'url', url: `http://127.0.0.1:${silent.port}/image.raw` });

  it('lets nobody in without its token, but tells anybody that it serves and shows its metrics', async () => {
    for (const token of [undefined, 'x'.repeat(43)]) {
      const stranger = createClient(agentRoutes, { baseUrl: agent.url, token });
      await assert.rejects(stranger.listTasks(), failsWith('UNAUTHORIZED'));
      await assert.rejects(stranger.facts(), failsWith('UNAUTHORIZED'));
      assert.deepEqual(await stranger.healthz(), { status: 'ok' });
      assert.match((await stranger.metrics()) as unknown as string, /^cistern_agent_build_info/m);
      stranger.close();
    }
    assert.equal(statSync(join(folder, 'state')).mode & 0o777, 0o700);
    assert.equal(statSync(join(folder, 'state', 'token')).mode & 0o777, 0o600);
  });

  it('tells once where its token lies, and never the token', async () => {
    const tells = () => agent.log.filter(line => line.includes(join(folder, 'state', 'token'))).length;
    assert.equal(tells(), 1);
    assert.ok(!agent.log.join('\n').includes(agent.token));
    await agent.stop();
    agent = await AgentProcess.start(folder, SETTINGS);
    assert.equal(tells(), 0);
  });

  it('refuses fields and commands that it does not know', async () => {
    const pool = { id: newId(), type: 'local', config: {} };
    const withMore = { kind: 'pool.usage', input: { pool, verbose: true } } as unknown as CommandMessage;
    await assert.rejects(send(withMore), failsWith('BAD_REQUEST'));
    await assert.rejects(send({ kind: 'pool.format', input: { pool } } as unknown as CommandMessage), failsWith('BAD_REQUEST'));
    await assert.rejects(agent.client.getTask({ params: { id: newId() } }), failsWith('TASK_UNKNOWN'));
  });

  it('does a task once, however often it is sent, and refuses its id for another command', async () => {
    const { pool } = await makePool('pool');
    const command = create(pool);
    const id = newId();
    await Promise.all([1, 2, 3].map(() => send(command, id)));
    const ended = await agent.ended(id);
    assert.equal(ended.state, 'succeeded', ended.error?.detail);
    assert.deepEqual(await send(command, id), ended);
    assert.equal(readdirSync(join(folder, 'pool', 'volumes')).length, 1);
    await assert.rejects(send(create(pool), id), failsWith('TASK_ID_REUSED'));
  });

  it('cancels a task that hangs, while others of its worker go on', async () => {
    const { id } = await send(fetching());
    await agent.running(id);
    assert.equal((await done({ kind: 'store.connect', input: { store: dirStore() } })).state, 'succeeded');
    await agent.client.cancelTask({ params: { id } });
    const ended = await agent.ended(id);
    assert.equal(ended.state, 'cancelled');
    assert.equal(ended.error?.code, 'CANCELLED');
    assert.deepEqual(await agent.client.cancelTask({ params: { id } }), ended, 'cancelling again changes nothing');
  });

  it('loses only the tasks of a worker that is killed, and goes on with that pool', async () => {
    const a = await makePool('a');
    const [first, second] = [(await send(fill(a.pool))).id, (await send(fetching())).id];
    await Promise.all([agent.running(first), agent.running(second)]);
    mkdirSync(join(a.path, 'tmp', first), { recursive: true });
    writeFileSync(join(a.path, 'tmp', first, 'part'), 'half');

    process.kill(agent.worker(a.pool.id)!, 'SIGKILL');
    const lost = await agent.ended(first);
    assert.equal(lost.error?.code, 'WORKER_DIED');
    assert.match(lost.error?.detail ?? '', /SIGKILL/);
    assert.equal((await agent.client.getTask({ params: { id: second } })).state, 'running');
    assert.equal((await done(create(a.pool))).state, 'succeeded');
    assert.ok(!existsSync(join(a.path, 'tmp', first)), 'what the dead task left is gone');
    assert.match(await metricsText(), /^cistern_agent_worker_deaths_total 1$/m);
  });

  it('tells what the host and its drivers can do', async () => {
    const facts = await agent.client.facts();
    assert.deepEqual(
      [facts.primary.map(d => d.type), facts.backup.map(d => d.type)],
      [
        ['local', 'nfs', 'rbd', 'shared-dir'],
        ['dir', 'rbd', 's3', 'sftp', 'swift'],
      ],
    );
    assert.match(facts.tools['qemu-img'] ?? '', /^\d+\./);
  });

  it('finds its tasks again after it was killed: interrupted, with nothing left of them', async () => {
    const { pool, path } = await makePool('pool');
    const kept = await done(create(pool));
    const cut = (await send(fill(pool))).id;
    const waiting = (await send(upload(null))).id;
    await agent.running(cut);
    const halfway = new Readable({ read: () => undefined });
    halfway.push(randomBytes(5000));
    const broken = assert.rejects(agent.client.putTaskInput({ params: { id: waiting } }, { stream: halfway }));
    await until('the upload lies in the spool', () => existsSync(join(folder, 'state', 'spool', waiting, 'input')));
    mkdirSync(join(path, 'tmp', cut), { recursive: true });
    const worker = agent.worker(pool.id)!;

    await agent.kill();
    await broken;
    agent = await AgentProcess.start(folder, SETTINGS);
    for (const id of [cut, waiting]) {
      const task = await agent.client.getTask({ params: { id } });
      assert.deepEqual([task.state, task.error?.code], ['failed', 'TASK_INTERRUPTED']);
    }
    assert.deepEqual(await agent.client.getTask({ params: { id: kept.id } }), { ...kept, progress: null });
    assert.deepEqual(readdirSync(join(folder, 'state', 'spool')), []);
    await until('the orphaned worker ends', () => !existsSync(`/proc/${worker}`));
    assert.equal((await done(create(pool))).state, 'succeeded');
    assert.deepEqual(readdirSync(join(path, 'tmp')), []);
  });

  it('serves a state folder alone', async () => {
    await assert.rejects(AgentProcess.start(folder, SETTINGS), /belongs to an agent that runs already/);
  });

  it('interrupts what hangs and exits with 0 on SIGTERM', async () => {
    const { id } = await send(fetching());
    await agent.running(id);
    const worker = agent.worker('host')!;
    assert.equal(await agent.stop(), 0);
    assert.ok(!existsSync(`/proc/${worker}`));
    agent = await AgentProcess.start(folder, SETTINGS);
    assert.equal((await agent.client.getTask({ params: { id } })).error?.code, 'TASK_INTERRUPTED');
  });

  describe('taking an upload', () => {
    const put = (id: string, body: Buffer) => agent.client.putTaskInput({ params: { id } }, { stream: Readable.from([body]) });

    it('starts the task when the bytes are there, and refuses a second body', async () => {
      const body = randomBytes(600 * 512);
      const { id } = await send(upload(body.length));
      assert.deepEqual(await put(id, body), { received: body.length });
      await assert.rejects(put(id, body), failsWith('WRONG_STATE'));
      const ended = await agent.ended(id);
      assert.equal(ended.state, 'succeeded', ended.error?.detail);
      const { sourceSha256 } = ended.output as { sourceSha256: string };
      assert.equal(sourceSha256, createHash('sha256').update(body).digest('hex'));
      assert.deepEqual(readdirSync(join(folder, 'state', 'spool')), []);
    });

    it('refuses a body for a task that takes none, and one of another length than declared, which may be sent again', async () => {
      const { pool } = await makePool('pool');
      await assert.rejects(put((await done(create(pool))).id, Buffer.alloc(9)), failsWith('WRONG_STATE'));
      const { id } = await send(upload(1024));
      await assert.rejects(put(id, Buffer.alloc(3_000_000)), failsWith('TOO_LARGE'));
      await assert.rejects(put(id, Buffer.alloc(1023)), failsWith('BAD_REQUEST'));
      assert.deepEqual(await put(id, Buffer.alloc(1024, 1)), { received: 1024 });
      assert.equal((await agent.ended(id)).state, 'succeeded');
    });

    it('stops at once when the task is cancelled while bytes come in', async () => {
      const { id } = await send(upload(null));
      const body = new Readable({ read: () => undefined });
      body.push(randomBytes(5000));
      const refused = assert.rejects(agent.client.putTaskInput({ params: { id } }, { stream: body }));
      await until('bytes lie in the spool', () => existsSync(join(folder, 'state', 'spool', id, 'input')));
      assert.equal((await agent.client.cancelTask({ params: { id } })).state, 'cancelled');
      await refused;
      assert.ok(!existsSync(join(folder, 'state', 'spool', id)));
    });
  });

  describe('reporting', () => {
    const token = 'report-token-0123456789';
    const finals = (batches: ReportBatch[]) =>
      batches
        .flatMap(batch => batch.reports)
        .filter(report => isFinal(report.state))
        .map(report => report.id);

    it('sends ended tasks to the controller in numbered batches, keeps them while it is away, and over its own restart', async () => {
      const batches: ReportBatch[] = [];
      const hostId = newId();
      const { pool } = await makePool('pool');
      let port: number;
      {
        await using receiver = await reportReceiver(token, batches);
        port = receiver.port;
        await agent.client.setController({ body: { url: receiver.url, hostId, token } });
        const { id } = await done(create(pool));
        await until('the report arrives', () => finals(batches).includes(id));
      }
      const missed = [await done(create(pool)), await done(create(pool))].map(task => task.id);
      {
        await using _receiver = await reportReceiver(token, batches, port);
        await until('what it missed is sent again', () => missed.every(id => finals(batches).includes(id)));
      }
      const seqs = batches.map(batch => batch.seq);
      assert.deepEqual(
        seqs,
        [...new Set(seqs)].sort((x, y) => x - y),
        'numbers grow',
      );
      assert.ok(batches.every(batch => batch.hostId === hostId && batch.epoch === batches[0]!.epoch));

      const late = (await done(create(pool))).id;
      await agent.kill();
      const before = batches.length;
      await using _receiver = await reportReceiver(token, batches, port);
      agent = await AgentProcess.start(folder, SETTINGS);
      await until('the restarted agent reports', () => finals(batches).includes(late));
      const fresh = batches.slice(before);
      assert.ok(fresh[0]!.epoch > batches[0]!.epoch, 'a new run has a higher epoch');
      assert.deepEqual(finals(fresh), [late], 'what was acknowledged is not sent again');
    });
  });

  const metricsText = async () => (await agent.client.metrics()) as unknown as string;

  it('counts what it does in metrics that Prometheus can read', async () => {
    const { pool } = await makePool('pool');
    await done(create(pool));
    const { id } = await send(fetching());
    await agent.running(id);
    const text = await metricsText();
    for (const line of text.split('\n').filter(Boolean))
      assert.match(line, /^(# (HELP|TYPE) [a-z0-9_:]+ .+|[a-z_:][a-z0-9_:]*(\{.*\})? [-+0-9.eInfNa]+)$/);
    assert.match(text, /^cistern_agent_tasks_total\{kind="volume.create",state="succeeded"\} 1$/m);
    assert.match(text, /^cistern_agent_tasks_running\{kind="image.import"\} 1$/m);
    assert.match(text, /^cistern_agent_task_duration_seconds_count\{kind="volume.create"\} 1$/m);
    assert.match(text, /^cistern_agent_workers 2$/m);
    assert.match(text, /^cistern_agent_build_info\{version="\d+\.\d+\.\d+"\} 1$/m);
    assert.match(text, /^process_resident_memory_bytes \d+/m);
  });

  it("keeps secrets of a command out of its files, its log and its workers' arguments", async () => {
    const { pool } = await makePool('pool');
    const failed = await done(fill(pool, unusedPort));
    assert.equal(failed.error?.code, 'STORE_UNREACHABLE');
    const worker = agent.worker(pool.id)!;
    for (const file of ['cmdline', 'environ']) assert.ok(!readFileSync(`/proc/${worker}/${file}`, 'utf8').includes(SECRET));
    assert.ok(!JSON.stringify(await agent.client.listTasks()).includes(SECRET));
    await agent.stop();
    const state = join(folder, 'state');
    const files = readdirSync(state, { recursive: true, encoding: 'utf8' })
      .map(name => join(state, name))
      .filter(name => statSync(name).isFile());
    assert.ok(files.some(name => name.endsWith('tasks.jsonl')));
    for (const name of files) assert.ok(!readFileSync(name, 'utf8').includes(SECRET), name);
    assert.ok(!agent.log.join('\n').includes(SECRET));
  });
});
