/** Hosts that join: what they get, whom both sides speak to from then on, and who is refused. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { joinRoutes, reportRoutes } from '../../shared/contract/operations.ts';
import { createClient } from '../../shared/http/client.ts';
import { CONTROLLER_NAME, hostName } from '../../shared/tls/names.ts';
import { newRequest } from '../../shared/tls/request.ts';
import { clientOf, type Identity } from '../../agent/identity.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, openHouse, until } from './house.ts';
import { AgentProcess } from './agent-process.ts';

const MAIN = join(import.meta.dirname, '../../agent/cistern-agent.js');
const MiB = 2 ** 20;

describe('hosts that join', function () {
  this.timeout(60_000);
  let house: House;
  let secureUrl: string;
  let stack: AsyncDisposableStack;

  before(async () => {
    // a minute: renewed after 20 s
    house = await openHouse({ hosts: [], controller: { certificateDays: 60 / 86_400 } });
    secureUrl = house.cistern.controller.url.replace('http:', 'https:');
  });
  beforeEach(() => void (stack = new AsyncDisposableStack()));
  afterEach(() => stack.disposeAsync());
  after(() => house?.[Symbol.asyncDispose]());

  interface Place {
    folder: string;
    config: string;
    port: number;
  }
  let port = 20_000 + (process.pid % 20_000);
  function place(name: string): Place {
    const folder = house.cistern.dir(name);
    mkdirSync(join(folder, 'state'), { recursive: true, mode: 0o700 });
    const config = join(folder, 'join.json');
    port++;
    writeFileSync(config, JSON.stringify({ port, stateDir: join(folder, 'state') }));
    return { folder, config, port };
  }
  const identityOf = ({ folder }: Place): Identity =>
    JSON.parse(readFileSync(join(folder, 'state/identity'), 'utf8')) as Identity;
  /** What the operator pastes on the host. */
  const paste = ({ config }: Place, { url, token, fingerprint }: { url: string; token: string; fingerprint: string }) =>
    execa('node', [MAIN, 'join', url, '--ca-fingerprint', fingerprint, '--token-file', '-', '--config', config], {
      input: token,
      reject: false,
      timeout: 30_000,
    });
  const start = async (at: Place): Promise<AgentProcess> =>
    stack.use(
      await AgentProcess.start(
        at.folder,
        { port: at.port, listen: '127.0.0.1', importAllow: ['127.0.0.0/8'] },
        { cwd: at.folder },
      ),
    );
  const connected = (name: string) =>
    until(`${name} is connected`, async () => {
      const host = await house.api.getHost({ params: { ref: name } });
      return host.status === 'connected' && host;
    });
  const clientAs = (identity: Identity) => {
    const client = createClient(reportRoutes, { baseUrl: secureUrl, tls: () => clientOf(identity) });
    stack.defer(() => client.close());
    return client;
  };
  const report = (identity: Identity, hostId = identity.hostId) =>
    clientAs(identity).postReports({ body: { hostId, epoch: 1, seq: 1, reports: [] } });

  it('do their work over mutual TLS, and refuse everybody else', async () => {
    const invited = await house.api.inviteHost({ body: { name: 'kvm1' } });
    const at = place('kvm1');
    const joined = await paste(at, invited);
    assert.equal(joined.exitCode, 0, joined.stderr);
    assert.equal(statSync(join(at.folder, 'state/identity')).mode & 0o777, 0o600);
    const identity = identityOf(at);
    const certificate = new X509Certificate(identity.certificate);
    assert.match(certificate.subject, new RegExp(`^CN=host ${identity.hostId} [0-9a-f]{16}$`));
    assert.equal(certificate.subjectAltName, 'IP Address:127.0.0.1');
    assert.equal(certificate.ca, false);

    const agent = await start(at);
    const host = await connected('kvm1');
    assert.equal(host.url, `https://127.0.0.1:${at.port}`);
    await house.addPool('fast');
    await done(house.api.createVolumes({ body: { name: 'empty', size: MiB, primaryStorage: 'fast' } }, WAIT));

    const url = agent.url.replace('http:', 'https:');
    const token = readFileSync(join(at.folder, 'state/token'), 'utf8').trim();
    const ways = {
      plain: createClient(agentRoutes, { baseUrl: url.replace('https:', 'http:'), token }),
      nobody: createClient(agentRoutes, { baseUrl: url, token, tls: () => ({ ca: identity.ca, peer: certificate.subject.slice(3) }) }), // prettier-ignore
      host: createClient(agentRoutes, { baseUrl: url, token, tls: () => ({ ...clientOf(identity), peer: certificate.subject.slice(3) }) }), // prettier-ignore
      wrongName: createClient(agentRoutes, { baseUrl: url, tls: () => ({ ...clientOf(identity), peer: CONTROLLER_NAME }) }),
    };
    stack.defer(() => Object.values(ways).forEach(way => way.close()));
    await assert.rejects(ways.plain.facts(), failsWith('TLS_REQUIRED'));
    await assert.rejects(ways.nobody.facts(), failsWith('PEER_UNTRUSTED'));
    await assert.rejects(ways.host.facts(), failsWith('FORBIDDEN', /this is for the controller/));
    await assert.rejects(ways.wrongName.facts(), failsWith('PEER_UNTRUSTED', /not to "cistern controller"/));

    await assert.rejects(report(identity, '01900000-0000-7000-8000-000000000000'), failsWith('UNAUTHORIZED', /another host/));
    const unknown = { ...identity, certificate: '', key: '' };
    await assert.rejects(clientAs(unknown).postReports({ body: { hostId: identity.hostId, epoch: 1, seq: 1, reports: [] } }), failsWith('UNAUTHORIZED')); // prettier-ignore
    await assert.rejects(
      Promise.resolve().then(() => createClient(controllerRoutes, { baseUrl: 'http://192.0.2.7:7070' })),
      failsWith('TLS_REQUIRED'),
    );
  });

  it('renew their certificates by themselves, and work on', async () => {
    const at = { folder: house.cistern.dir('kvm1'), config: '', port };
    const before = identityOf(at);
    const agent = await start(at);
    await until('another certificate', () => identityOf(at).certificate !== before.certificate);
    assert.notEqual(identityOf(at).key, before.key);
    await done(house.api.reconnectHost({ params: { ref: 'kvm1' } }, WAIT));
    assert.ok(agent.log.some(line => line.includes('was renewed')));
  });

  it('join once for each token, and never past a wrong fingerprint', async () => {
    const invited = await house.api.inviteHost({ body: { name: 'kvm2' } });
    const at = place('kvm2');
    const middle = await paste(at, { ...invited, fingerprint: 'ab'.repeat(32) });
    assert.equal(middle.exitCode, 1);
    assert.match(middle.stderr, /CA_MISMATCH/);
    const guessed = await paste(at, { ...invited, token: 'x'.repeat(43) });
    assert.match(guessed.stderr, /UNAUTHORIZED/);
    assert.equal((await paste(at, invited)).exitCode, 0, 'nothing of it was used up by then');
    assert.match((await paste(place('kvm3'), invited)).stderr, /JOIN_REFUSED.*was used at/s);
    assert.ok(!`${middle.command}`.includes(invited.token));
  });

  it('are refused at once after they were removed, or joined anew', async () => {
    const old = identityOf({ folder: house.cistern.dir('kvm2'), config: '', port });
    const again = await house.api.rejoinHost({ params: { ref: 'kvm2' } });
    const at = place('kvm2-new');
    assert.equal((await paste(at, again)).exitCode, 0);
    const identity = identityOf(at);
    assert.equal(identity.hostId, old.hostId);
    await assert.rejects(report(old), failsWith('UNAUTHORIZED', /an earlier join/));
    await assert.rejects(report(identity), failsWith('AGENT_UNKNOWN'));
    await start(at);
    await connected('kvm2');
    await house.cistern.controller.stop();
    await house.cistern.controller.start();
    await connected('kvm2');
    await done(house.api.removeHost({ params: { ref: 'kvm2' } }, WAIT));
    await assert.rejects(report(identity), failsWith('UNAUTHORIZED'));
  });

  it('get nothing but their own name, whatever they ask for', async () => {
    const { token, fingerprint } = await house.api.inviteHost({ body: { name: 'kvm4' } });
    assert.match(fingerprint, /^[0-9a-f]{64}$/);
    const { ca } = identityOf({ folder: house.cistern.dir('kvm1'), config: '', port });
    const client = createClient(joinRoutes, { baseUrl: secureUrl, tls: () => ({ ca, peer: CONTROLLER_NAME }) });
    stack.defer(() => client.close());
    await assert.rejects(client.join({ body: { token, csr: 'nonsense', port: 1 } }), failsWith('BAD_REQUEST', /csr/));
    const { csr } = await newRequest();
    const { hostId, certificate } = await client.join({ body: { token, csr, port: 7071 } });
    const found = new X509Certificate(certificate);
    assert.ok(found.subject.startsWith(`CN=${hostName(hostId, '')}`));
    assert.deepEqual([found.ca, found.subjectAltName], [false, 'IP Address:127.0.0.1']);
  });
});
