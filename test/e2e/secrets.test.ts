import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Operation } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { canariesBelow, canariesIn, formsOf, watchProcesses } from './canaries.ts';
import { COMMAND, startProgram, userEnv } from './cli-process.ts';
import { dump, type House, makeDisk, MiB, openHouse, until } from './house.ts';
import { ask, events, send } from './http.ts';

const canary = (name: string): string => `CANARY-${name}-${randomBytes(9).toString('hex')}+/ "\\`;
/** For places where only some characters may stand. */
const plain = (name: string): string => `CANARY-${name}-${randomBytes(9).toString('hex')}`;

describe('secrets stay where they belong', () => {
  let house: House;
  const canaries: Record<string, string> = {
    password: canary('password'),
    passphrase: canary('passphrase'),
    misspelt: canary('misspelt'),
    wrongType: canary('wrong-type'),
    brokenJson: plain('json'),
    mountOption: plain('mount-option'),
    signature: plain('signature'),
    fragment: plain('fragment'),
    userinfo: plain('userinfo'),
    redirected: plain('redirected'),
    idempotency: plain('idempotency'),
    header: plain('header'),
    badToken: plain('bad-token'),
    environment: plain('environment'),
    cliFile: canary('cli-file').replaceAll('\\', ''),
  };

  before(async function () {
    this.timeout(90_000);
    process.env.CISTERN_TEST_CANARY = canaries.environment;
    house = await openHouse({ hosts: ['host-1'], sshd: true, controller: { logLevel: 'debug' }, agent: { logLevel: 'debug' } });
    delete process.env.CISTERN_TEST_CANARY;
    // the body of the private key, and the tokens of both services
    canaries.privateKey = house.sshd.privateKey.split('\n')[2]!;
    canaries.apiToken = house.cistern.controller.token;
    canaries.agentToken = house.cistern.agents[0]!.token;
    await house.addStore('depot');
    await house.addPool('fast');
    await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'canaries');
  });
  after(() => house?.[Symbol.asyncDispose]());

  it('through success, failure, cancel and crash: in no log, process, journal, database, metric, error or answer', async function () {
    this.timeout(240_000);
    const { api, web, cistern, sshd } = house;
    const controller = cistern.controller;
    const agent = cistern.agents[0]!;
    const { host, port, user, hostKey, path, privateKey } = sshd;
    const answers: string[] = [];
    const tell = (answer: unknown): void => void answers.push(typeof answer === 'string' ? answer : JSON.stringify(answer));
    const failed = (operation: Operation): void => {
      assert.equal(operation.state, 'failed', JSON.stringify(operation));
      tell(operation);
    };
    await using seen = watchProcesses(() => [controller.pid, agent.pid], without(canaries, 'environment'));
    const streamed: string[] = [];
    const stream = (async () => {
      for await (const event of events(controller, '/api/v1/events?after=0')) streamed.push(JSON.stringify(event));
    })().catch(() => undefined); // it ends with the controller

    // bad input, in each way that a person may give it
    const post = async (path: string, body: string, headers: Record<string, string> = {}) =>
      tell((await ask(controller, 'POST', `/api/v1/${path}`, { body, headers: { 'Content-Type': 'application/json', ...headers } })).text); // prettier-ignore
    const json = JSON.stringify;
    await post('backup-storages', canaries.brokenJson!); // a parser quotes what is short
    await post('hosts', json({ name: 'h', url: 'http://127.0.0.1:9', token: [canaries.wrongType] }));
    await post('backup-storages', json({ name: 'x', type: 'sftp', config: canaries.wrongType }));
    await post('images', json({ name: 'i', source: { type: 'url', url: `http://u:${canaries.userinfo}@127.0.0.1/x` } }));
    await post('volumes', json({ name: 'v', size: MiB }), { 'Idempotency-Key': canaries.idempotency!, 'X-Api-Key': canaries.header!, Cookie: `s=${canaries.header}` }); // prettier-ignore
    await post('volumes', json({ name: 'w', size: MiB }), { 'Idempotency-Key': canaries.idempotency! });
    await post('volumes', json({ name: 'w', size: MiB }), { Authorization: `Bearer ${canaries.badToken}` });

    // settings of storages: wrong ones, refused ones, an unreachable server, and right ones
    const sftp = { host, port, user, hostKey, path };
    const add = (name: string, config: Record<string, unknown>) =>
      api.addBackupStorage({ body: { name, type: 'sftp', config } }, WAIT);
    failed(await add('wrong', { ...sftp, password: canaries.password }));
    failed(await add('odd', { ...sftp, pasword: canaries.misspelt, privateKey: [canaries.wrongType] }));
    failed(await add('away', { ...sftp, port: 9, privateKey, passphrase: canaries.passphrase }));
    const options = ['hard', `password=${canaries.mountOption}`];
    const nfs = { server: '127.0.0.1', export: '/x', options };
    failed(await api.addPrimaryStorage({ body: { name: 'nfs', type: 'nfs', config: nfs } }, WAIT));
    // a key with a passphrase, which ssh has to ask for
    const locked = join(cistern.folder, 'secret-of-the-user.key');
    writeFileSync(locked, privateKey, { mode: 0o600 });
    await execa('ssh-keygen', ['-q', '-p', '-P', '', '-N', canaries.passphrase!, '-f', locked]);
    const lockedKey = readFileSync(locked, 'utf8');
    canaries.lockedKey = lockedKey.split('\n')[2]!;
    await done(add('vault', { ...sftp, privateKey: lockedKey, passphrase: canaries.passphrase }));
    const keyFile = join(cistern.folder, 'secret-of-the-user');
    writeFileSync(keyFile, `${canaries.cliFile}\n`, { mode: 0o600 });
    const typed = ['host', 'user', 'path', 'hostKey'].flatMap(key => ['--set', `${key}=${sftp[key as 'host']}`]);
    const cli = startProgram(COMMAND, ['backup-storage', 'add', 'typed', '--type', 'sftp', ...typed, '--set', `port=${port}`, '--set-file', `password=${keyFile}`], userEnv(cistern)); // prettier-ignore
    const told = await cli.ended;
    assert.equal(told.code, 1, told.stdout);
    tell(told);

    // images: by signed URLs, with a wrong digest, through a redirect, cancelled, and under a kill -9
    const signed = (file: string) => `${web.url}/${file}?X-Amz-Signature=${canaries.signature}#${canaries.fragment}`;
    const take = (name: string, more: object = {}) => ({ body: { name, source: { type: 'url' as const, url: signed('disk.raw') }, backupStorages: ['vault'], ...more } }); // prettier-ignore
    tell(await done(api.importImage(take('good'), WAIT)));
    failed(await api.importImage(take('bad', { sha256: '0'.repeat(64) }), WAIT));
    failed(await api.importImage(take('gone', { source: { type: 'url', url: signed('none.raw') } }), WAIT));
    web.behave('/moved.raw', { redirect: `http://u:${canaries.redirected}@127.0.0.1:9/x?sig=${canaries.redirected}` });
    failed(await api.importImage(take('moved', { source: { type: 'url', url: signed('moved.raw') } }), WAIT));
    web.behave('/disk.raw', { bytesPerSecond: 2 * MiB });
    const slow = await api.importImage(take('slow'));
    await until('bytes of the slow import', async () => (await api.getOperation({ params: { ref: slow.id } })).progress?.done);
    await api.cancelOperation({ params: { ref: slow.id } });
    tell(await house.ended(slow.id));
    const crashed = await api.importImage(take('crashed'));
    await until(
      'bytes of the crashed import',
      async () => (await api.getOperation({ params: { ref: crashed.id } })).progress?.done,
    );
    await Promise.all([controller.kill(), agent.kill()]);
    web.behave('/disk.raw', {});
    await agent.start();
    await controller.start();
    tell(await house.ended(crashed.id));
    tell(await done(api.createVolumes({ body: { name: 'vm', image: 'good', primaryStorage: 'fast' } }, WAIT)));
    await stream;

    // everything that can be read
    tell(await dump(api));
    for (const at of ['/api/v1/events?limit=1000', '/metrics', '/openapi.json', '/docs', '/sd/agents', '/api/v1/tokens'])
      tell((await ask(controller, 'GET', at)).text);
    for (const at of ['/metrics', '/v1/tasks', '/v1/facts']) tell((await ask(agent, 'GET', at)).text);
    tell((await send(controller, 'POST', '/api/v1/volumes/none/resize', { size: 'x' })).text);
    const leaks = answers.flatMap((text, i) => canariesIn(`answer ${i}`, text, canaries));
    leaks.push(...streamed.flatMap(text => canariesIn('the event stream', text, canaries)));
    for (const [name, service] of Object.entries({ controller, agent }))
      leaks.push(...service.log.flatMap(line => canariesIn(`the log of the ${name}`, line, canaries)));
    leaks.push(...seen.found());
    for (const program of ['ssh', 'node'])
      assert.ok(seen.programs().includes(program), `no ${program} was seen at work: ${seen.programs().join(' ')}`);

    // and what lies on disk, while the services run and once they have stopped
    const mayHold = /(\/(token|secret\.key)|agent[^/]*\/state\/controller\.json|\/secret-of-the-user(\.key)?|\/www\/.*)$/;
    // for a moment while an ssh logs in: the agent measures its stores whenever it likes
    const loggingIn = /\/host-1\/state\/tmp\/worker-[^/]+\/cistern-ssh-[^/]+\/(key|secret)$/;
    leaks.push(...canariesBelow(cistern.folder, canaries, new RegExp(`${mayHold.source}|${loggingIn.source}`)));
    await controller.stop();
    await agent.stop();
    leaks.push(...canariesBelow(cistern.folder, canaries, mayHold));
    assert.deepEqual(leaks, []);
  });

  it('would be seen if one leaked, in whatever form', () => {
    const secret = canaries.password!;
    for (const text of [secret, encodeURIComponent(secret), JSON.stringify({ secret }), Buffer.from(secret).toString('hex')])
      assert.equal(canariesIn('here', `before ${text} after`, canaries).length, 1, text);
    for (const before of ['', 'a', 'ab', 'abc'])
      assert.equal(canariesIn('here', Buffer.from(`${before}${secret}xyz`).toString('base64'), canaries).length, 1, before);
    assert.ok(formsOf(secret).every(form => form.length > 20));
    const folder = mkdtempSync(join(tmpdir(), 'cistern-canaries-'));
    try {
      writeFileSync(join(folder, 'file'), Buffer.concat([randomBytes(5000), Buffer.from(secret), randomBytes(5000)]));
      assert.equal(canariesBelow(folder, canaries, /none/).length, 1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

const without = (all: Record<string, string>, ...names: string[]): Record<string, string> =>
  Object.fromEntries(Object.entries(all).filter(([name]) => !names.includes(name)));
