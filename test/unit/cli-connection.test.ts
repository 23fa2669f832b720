import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { resolveConnection } from '../../controller/cli/connection.ts';
import { parseFileSetting, parseSetting } from '../../controller/cli/settings.ts';

describe('cistern: the way to the controller', () => {
  const home = mkdtempSync(join(tmpdir(), 'cistern-cli-'));
  const file = (name: string, content: string): string => {
    const path = join(home, name);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, content);
    return path;
  };
  after(() => rmSync(home, { recursive: true }));
  beforeEach(() => rmSync(join(home, '.config'), { recursive: true, force: true }));
  const configure = (config: object): string => file('.config/cistern/config.json', JSON.stringify(config));

  it('is on this machine when nothing else is said', () => {
    assert.equal(resolveConnection({}, { HOME: home }).url, 'http://127.0.0.1:7070');
  });

  it('goes by flags before environment before configuration file', () => {
    file('.config/cistern/own.token', 'token-of-config\n');
    configure({ url: 'http://config:1', tokenFile: 'own.token' });
    assert.deepEqual(resolveConnection({}, { HOME: home }), { url: 'http://config:1', token: 'token-of-config' });
    const env = { HOME: home, CISTERN_URL: 'http://env:2', CISTERN_TOKEN_FILE: file('env.token', 'token-of-env-file') };
    assert.deepEqual(resolveConnection({}, env), { url: 'http://env:2', token: 'token-of-env-file' });
    assert.equal(resolveConnection({}, { ...env, CISTERN_TOKEN: 'token-of-env' }).token, 'token-of-env');
    file('flag.token', 'token-of-flag\n');
    assert.deepEqual(resolveConnection({ url: 'https://flag:3', tokenFile: '~/flag.token' }, { ...env, CISTERN_TOKEN: 'x' }), {
      url: 'https://flag:3',
      token: 'token-of-flag',
    });
  });

  it('reads the configuration from XDG_CONFIG_HOME where that is set', () => {
    file('xdg/cistern/config.json', '{"url":"http://xdg:4"}');
    assert.equal(resolveConnection({}, { HOME: home, XDG_CONFIG_HOME: join(home, 'xdg') }).url, 'http://xdg:4');
  });

  it('says which file is wrong and how', () => {
    assert.throws(() => resolveConnection({ tokenFile: '/no/such/token' }, { HOME: home }), {
      code: 'UNAUTHORIZED',
      message: /\/no\/such\/token.*ENOENT/,
    });
    assert.throws(() => resolveConnection({ tokenFile: file('two.token', 'one two') }, { HOME: home }), {
      code: 'UNAUTHORIZED',
      message: /two\.token.*one token/,
    });
    configure({ urll: 'http://typo' });
    assert.throws(() => resolveConnection({}, { HOME: home }), { code: 'BAD_REQUEST', message: /config\.json.*urll/s });
    file('.config/cistern/config.json', '{not json');
    assert.throws(() => resolveConnection({}, { HOME: home }), { code: 'BAD_REQUEST', message: /config\.json.*JSON/s });
    assert.throws(() => resolveConnection({ url: 'controller:7070' }, { HOME: '/nonexistent' }), {
      code: 'BAD_REQUEST',
      message: /not an http\(s\) URL/,
    });
  });

  it('takes settings as numbers, booleans and arrays where they are that, else as text', () => {
    const typed = [
      'port=2222',
      'ro=false',
      'options=["hard","nconnect=4"]',
      'host=nas1',
      'version=4.2',
      'note=a=b',
      'empty=',
      'object={"a":1}',
      'nothing=null',
      'zip=007',
    ];
    assert.deepEqual(
      typed.reduce((before, text) => parseSetting(text, before), {}),
      {
        port: 2222,
        ro: false,
        options: ['hard', 'nconnect=4'],
        host: 'nas1',
        version: 4.2,
        note: 'a=b',
        empty: '',
        object: '{"a":1}',
        nothing: 'null',
        zip: '007',
      },
    );
    for (const text of ['novalue', '=x', '1a=x']) assert.throws(() => parseSetting(text), /KEY=VALUE/);
  });

  it('refuses secrets on the command line, does not repeat them, and says where they belong', () => {
    for (const key of ['password', 'privateKey', 'passphrase', 'secret', 'secretKey', 'sshPassword']) {
      assert.throws(
        () => parseSetting(`${key}=hunter2`),
        (error: Error & { action: string }) =>
          !error.message.includes('hunter2') && error.action.includes(`--set-file ${key}=PATH`),
      );
    }
    assert.deepEqual(parseSetting('hostKey=ssh-ed25519 AAAA'), { hostKey: 'ssh-ed25519 AAAA' });
  });

  it('reads settings from files: keys keep their last newline, passwords lose it', () => {
    const key = '-----BEGIN KEY-----\nabc\n-----END KEY-----\n';
    assert.deepEqual(parseFileSetting(`privateKey=${file('id', key)}`, { user: 'x' }), { user: 'x', privateKey: key });
    assert.deepEqual(parseFileSetting(`password=${file('pw', 'hunter2\n')}`), { password: 'hunter2' });
    assert.throws(() => parseFileSetting('password=/no/such/file'), /\/no\/such\/file: ENOENT/);
  });
});
