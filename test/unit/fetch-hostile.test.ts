/** Web servers that lie, trickle, never end or lead elsewhere: what is fetched is whole and from where it may be, or nothing is. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { fetchToFile, type FetchOptions } from '../../agent/host/fetch.ts';
import { run } from '../../agent/host/run.ts';
import { CisternError } from '../../shared/errors.ts';
import { startImageServer } from '../servers/http-image-server.ts';
import { repeat, startRawServer } from '../servers/raw-http.ts';

describe('fetching from a hostile server', () => {
  let folder: string;
  const target = (): string => join(folder, 'target');
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'fetch-hostile-'))));
  afterEach(() => rmSync(folder, { recursive: true }));

  const fetching = (url: string, more: Partial<FetchOptions> = {}) =>
    fetchToFile({ url, target: target(), allow: ['127.0.0.0/8'], maxBytes: 1_000_000, stallSeconds: 5, ...more });
  const refused = async (url: string, code: string, words: RegExp, more: Partial<FetchOptions> = {}): Promise<string> => {
    let message = '';
    await assert.rejects(fetching(url, more), (error: unknown) => {
      assert.ok(error instanceof CisternError, String(error));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, words);
      message = error.message;
      return true;
    });
    assert.ok(!existsSync(target()), 'nothing is left');
    return message;
  };
  /** Each request in turn gets one of the answers, the last of them for ever. */
  const answering = (...answers: string[]) =>
    startRawServer((socket, before) => socket.end(answers[Math.min(before, answers.length - 1)] ?? ''));
  const speaking = (speak: (socket: Socket) => void) => startRawServer(speak);
  const head = (status: string, ...lines: string[]): string => `HTTP/1.1 ${[status, ...lines].join('\r\n')}\r\n\r\n`;

  it('takes no part of a file for the whole of it', async () => {
    for (const range of [
      'bytes 0-4/10',
      'bytes 0-4/*',
      'bytes 0-4/5',
      'bytes 5-9/10',
      'pages 1-2/3',
      'bytes 0-99999999999999999999/*',
    ]) {
      await using server = await answering(head('206 Partial Content', `Content-Range: ${range}`, 'Content-Length: 5') + 'xxxxx');
      await refused(server.url, 'URL_FAILED', /asked for all bytes, got/);
    }
  });

  it('takes a broken download up again only by an answer that holds all that is missing', async () => {
    const first = `${head('200 OK', 'ETag: "a"', 'Content-Length: 10')}01234`;
    const rest = (range: string, length: number, body: string): string =>
      head('206 Partial Content', `Content-Range: ${range}`, `Content-Length: ${length}`) + body;
    /** Node drops what came where the end came with it, so the first half may be lost: then it is told once more. */
    const broken = async (second: string, work: (url: string) => Promise<unknown>): Promise<string[]> => {
      for (let tries = 0; ; tries++) {
        await using server = await answering(first, second);
        const outcome = await work(server.url).then(
          () => undefined,
          (error: unknown) => ({ error }),
        );
        const resumed = /^range: /im.test(server.heads[1] ?? '');
        if (!resumed && tries < 20) continue;
        if (outcome) throw outcome.error;
        return server.heads;
      }
    };
    for (const second of [
      rest('bytes 5-6/10', 2, '56'),
      rest('bytes 5-6/7', 2, '56'),
      rest('bytes 5-10/11', 6, '56789x'),
      rest('bytes 5-9/11', 5, '56789'),
      rest('bytes 5-6/*', 2, '56'),
      rest('bytes 5-9/10', 2, '56'),
      rest('bytes 4-9/10', 6, '456789'),
    ]) {
      await broken(second, url => refused(url, 'URL_FAILED', /asked for the bytes from 5 on, got/));
    }
    for (const range of ['bytes 5-9/10', 'bytes 5-9/*']) {
      const heads = await broken(rest(range, 5, '56789'), async url => {
        assert.equal((await fetching(url)).size, 10);
        assert.equal(readFileSync(target(), 'utf8'), '0123456789');
        rmSync(target());
      });
      assert.match(heads[1] ?? '', /^range: bytes=5-\r\nif-range: "a"\r$/im);
    }
  });

  it('believes no length: less is a broken connection, what comes beyond it is not the image', async () => {
    await using short = await answering(`${head('200 OK', 'Content-Length: 10')}12345`);
    await refused(short.url, 'URL_FAILED', /in 3 tries/);
    await using long = await answering(`${head('200 OK', 'Content-Length: 5')}12345GET / HTTP/1.1`);
    assert.equal((await fetching(long.url)).size, 5);
    assert.equal(readFileSync(target(), 'utf8'), '12345');
    rmSync(target());
    await using chunked = await answering(`${head('200 OK', 'Transfer-Encoding: chunked')}5\r\n12345\r\n`);
    await refused(chunked.url, 'URL_FAILED', /in 3 tries/);
  });

  it('refuses two lengths, which two readers would understand differently', async () => {
    for (const lines of [
      ['Content-Length: 5', 'Content-Length: 6'],
      ['Transfer-Encoding: chunked', 'Content-Length: 5'],
      ['Content-Length: -5'],
      ['Content-Length: 5, 5'],
    ]) {
      await using server = await answering(`${head('200 OK', ...lines)}12345`);
      await refused(server.url, 'URL_FAILED', /./);
    }
  });

  it('ends a body that never ends, at the size that it may have', async () => {
    await using endless = await speaking(socket => {
      const piece = `4000\r\n${'x'.repeat(0x4000)}\r\n`;
      const push = (): void => void (socket.destroyed || (socket.write(piece) ? setImmediate(push) : socket.once('drain', push)));
      socket.write(head('200 OK', 'Transfer-Encoding: chunked'));
      push();
    });
    await refused(endless.url, 'IMAGE_TOO_LARGE', /is larger; at most 1000000 bytes/);
  });

  it('takes a byte now and then for no progress, in the head as in the body', async () => {
    await using body = await speaking(socket => {
      socket.write(head('200 OK', 'Content-Length: 1000'));
      repeat(socket, 'x', 20);
    });
    await refused(body.url, 'TRANSFER_STALLED', /only \d+ bytes came for 0\.5 s/, { stallSeconds: 0.5 });
    await using slowHead = await speaking(socket => {
      socket.write('HTTP/1.1 200 OK\r\nX: ');
      repeat(socket, 'x', 20);
    });
    await refused(slowHead.url, 'TRANSFER_STALLED', /no byte came/, { stallSeconds: 0.5 });
    await using hints = await speaking(socket => repeat(socket, 'HTTP/1.1 103 Early Hints\r\n\r\n', 20));
    await refused(hints.url, 'TRANSFER_STALLED', /no byte came/, { stallSeconds: 0.5 });
  });

  it('fails on a head without end and on what is no HTTP', async () => {
    for (const words of [
      `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(200_000)}\r\n\r\n`,
      'SSH-2.0-OpenSSH_9.2\r\n',
      'HTTP/1.1 200 OK\r\n X: y\r\n\r\n',
    ]) {
      await using server = await answering(words);
      await refused(server.url, 'URL_FAILED', /./);
    }
  });

  it('shows nothing of what the server says, which a terminal might obey, and no more than a line of where it leads', async () => {
    await using rude = await answering(head('404 \x1b]0;owned\x07\x1b[2J'));
    assert.match(await refused(rude.url, 'URL_FAILED', /answered 404 Not Found$/), /^[\x20-\x7e]+$/);
    await using far = await answering(
      head('302 Found', `Location: http://127.0.0.1:1/${'x'.repeat(10_000)}?${'y'.repeat(4_000)}`),
    );
    assert.ok((await refused(far.url, 'URL_FAILED', /ECONNREFUSED/)).length < 700);
    await using away = await answering(head('302 Found', `Location: http://10.0.0.1/${'x'.repeat(10_000)}`));
    assert.ok((await refused(away.url, 'URL_REFUSED', /10\.0\.0\.1 \(private\)/)).length < 700);
  });

  it('judges redirects to every other address, whatever the operator allowed for the first', async () => {
    await using other = await startRawServer(socket => socket.end(head('200 OK', 'Content-Length: 0')), '127.0.0.2');
    await using first = await answering(head('302 Found', `Location: ${other.url}/`));
    await refused(first.url, 'URL_REFUSED', /127\.0\.0\.2 \(loopback\)/, { allow: ['127.0.0.1'] });
    assert.deepEqual(other.heads, []);
    assert.equal((await fetching(first.url, { allow: ['127.0.0.1', '127.0.0.2'] })).size, 0);
  });

  it('sends user and password to the same scheme, host and port only, and no others that a redirect names', async () => {
    await using other = await startRawServer(socket => socket.end(head('200 OK', 'Content-Length: 0')));
    const port = other.url.split(':').at(-1);
    await using first = await answering(head('302 Found', `Location: http://you:trap@127.0.0.1:${port}/`));
    await fetching(first.url.replace('//', '//me:hunter2@'));
    assert.match(first.heads[0] ?? '', /^authorization: basic /im);
    assert.doesNotMatch(other.heads[0] ?? '', /authorization|cookie|referer/i);
  });

  it('verifies the name in a certificate, and lets no environment switch that off', async () => {
    const { ca, cert, key } = await makeCertificate(folder, 'localhost');
    const known = getCACertificates('default');
    const { NODE_TLS_REJECT_UNAUTHORIZED: before } = process.env;
    writeFileSync(join(folder, 'a.img'), 'image');
    await using secure = await startImageServer(folder, { tls: { key, cert } });
    try {
      setDefaultCACertificates([...known, ca]);
      assert.equal((await fetching(`https://localhost:${secure.port}/a.img`)).size, 5);
      rmSync(target());
      await refused(`https://127.0.0.1:${secure.port}/a.img`, 'URL_FAILED', /does not match certificate/);
      setDefaultCACertificates(known);
      process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
      await refused(`https://localhost:${secure.port}/a.img`, 'URL_FAILED', /certificate/);
      assert.equal(secure.requests.length, 1);
      await using plain = await startImageServer(folder);
      secure.behave('/down', { redirect: `${plain.url}/a.img` });
      setDefaultCACertificates([...known, ca]);
      await refused(`https://localhost:${secure.port}/down`, 'URL_REFUSED', /redirects from https/);
      assert.equal(plain.requests.length, 0);
    } finally {
      if (before === undefined) delete process.env['NODE_TLS_REJECT_UNAUTHORIZED'];
      else process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = before;
      setDefaultCACertificates(known);
    }
  });
});

/** A certificate for `name` alone, of an authority of our own. */
async function makeCertificate(folder: string, name: string): Promise<{ ca: string; cert: string; key: string }> {
  const file = (base: string): string => join(folder, base);
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const out = (base: string): string[] => ['-keyout', file(`${base}.key`), '-out', file(`${base}.pem`)];
  await run('openssl', ['req', '-x509', ...ec, '-subj', '/CN=test authority', ...out('ca')]);
  const by = ['-CA', file('ca.pem'), '-CAkey', file('ca.key')];
  const extensions = ['-addext', `subjectAltName=DNS:${name}`, '-addext', 'basicConstraints=critical,CA:FALSE'];
  await run('openssl', ['req', '-x509', ...by, ...ec, '-subj', `/CN=${name}`, ...extensions, ...out('leaf')]);
  const [ca = '', cert = '', key = ''] = ['ca.pem', 'leaf.pem', 'leaf.key'].map(base => readFileSync(file(base), 'utf8'));
  return { ca, cert, key };
}
