import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import dns from 'node:dns';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { fetchToFile, type FetchOptions } from '../../agent/host/fetch.ts';
import { run } from '../../agent/host/run.ts';
import { allowedAddresses, allowList, hostOf, notPublic, parseUrl, redact } from '../../agent/host/url-guard.ts';
import { CisternError } from '../../shared/errors.ts';
import { startImageServer, type ImageServer } from '../servers/http-image-server.ts';

const fails = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof CisternError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, words);
  return true;
};

describe('the URL guard', () => {
  it('knows public addresses from all others', () => {
    for (const address of [
      '1.1.1.1',
      '8.8.8.8',
      '172.15.0.1',
      '172.32.0.1',
      '100.63.0.1',
      '2606:4700::1111',
      '64:ff9b::808:808',
      '2002:808:808::1',
      '::ffff:8.8.8.8',
    ])
      assert.equal(notPublic(address), undefined, address);
    const refused = [
      '0.0.0.0',
      '10.1.2.3',
      '100.64.0.1',
      '127.0.0.1',
      '127.255.1.1',
      '169.254.169.254',
      '172.16.0.1',
      '172.31.255.255',
      '192.168.1.1',
    ];
    refused.push(
      '192.0.0.192',
      '198.18.0.1',
      '224.0.0.1',
      '255.255.255.255',
      '168.63.129.16',
      '100.100.100.200',
      '::',
      '::1',
      'fe80::1',
      'fe80::1%eth0',
      'fc00::1',
    );
    refused.push(
      'fd00:ec2::254',
      'ff02::1',
      '::ffff:127.0.0.1',
      '::ffff:a9fe:a9fe',
      '::127.0.0.1',
      '64:ff9b::10.0.0.1',
      '64:ff9b:1::808:808',
      '2002:7f00:1::',
      '2001::1',
    );
    refused.push('2001:db8::1', '3fff::1', '::ffff:0:127.0.0.1', 'fec0::1', 'localhost', '');
    for (const address of refused) assert.notEqual(notPublic(address), undefined, address);
  });

  it('sees through every way of writing a host', () => {
    const hosts = [
      '127.1',
      '2130706433',
      '0x7f.0.0.1',
      '0x7f000001',
      '0177.0.0.1',
      '127.0.0.1.',
      '①②⑦.⓪.⓪.①',
      '%31%32%37.0.0.1',
      '[::ffff:127.0.0.1]',
      '[0:0:0:0:0:0:0:1]',
      '0',
    ];
    for (const host of hosts) {
      const url = parseUrl(`http://${host}/x`);
      assert.throws(() => allowedAddresses(url, [hostOf(url)], allowList([])), fails('URL_REFUSED', /leads to/), host);
    }
  });

  it('refuses private IPv4 in whatever IPv6 it is wrapped, and lets public IPv4 pass the same way', () => {
    const octet = fc.integer({ min: 0, max: 255 });
    fc.assert(
      fc.property(octet, octet, octet, octet, (a, b, c, d) => {
        const plain = `${a}.${b}.${c}.${d}`;
        const hex = [(a << 8) | b, (c << 8) | d].map(word => word.toString(16)).join(':');
        const verdict = notPublic(plain);
        for (const wrapped of [
          `::ffff:${plain}`,
          `::ffff:${hex}`,
          `0:0:0:0:0:ffff:${hex}`,
          `64:ff9b::${plain}`,
          `2002:${hex}::5`,
        ])
          assert.equal(notPublic(wrapped), verdict, wrapped);
        assert.notEqual(notPublic(`::${plain}`), undefined);
      }),
      { numRuns: 300 },
    );
  });

  it('refuses all IPv6 outside 2000::/3, whatever its bits', () => {
    const word = fc.integer({ min: 0, max: 0xffff });
    fc.assert(
      fc.property(fc.array(word, { minLength: 8, maxLength: 8 }), words => {
        const [first = 0, second = 0] = words;
        const special = (first === 0x64 && second === 0xff9b) || (first === 0 && second === 0);
        return special || first >> 13 === 1 || notPublic(words.map(w => w.toString(16)).join(':')) !== undefined;
      }),
      { numRuns: 1000 },
    );
  });

  it('allows what the operator lists, and only that', () => {
    const allowed = allowList(['127.0.0.0/8', '10.1.2.3', 'fd00::/8']);
    for (const address of ['127.9.9.9', '10.1.2.3', '::ffff:10.1.2.3', 'fd12::1']) assert.ok(allowed(address), address);
    for (const address of ['10.1.2.4', '64:ff9b::10.1.2.3', '2002:a01:203::', 'fe80::1', '::1'])
      assert.ok(!allowed(address), address);
    for (const entry of ['localhost', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '', '10.0.0.0/-1', '::/129', 'fe80::1%lo'])
      assert.throws(() => allowList([entry]), fails('BAD_REQUEST', /import\.allow/), entry);
  });

  it('takes http and https only and never shows secrets', () => {
    for (const url of ['file:///etc/passwd', 'ftp://a/b', 'gopher://a', 'data:,x'])
      assert.throws(() => parseUrl(url), fails('URL_REFUSED', /only http/), url);
    assert.throws(() => parseUrl('http://'), fails('BAD_REQUEST', /not a valid URL/));
    assert.equal(redact(new URL('https://me:hunter2@host:8443/a/b?sig=hunter2#x')), 'https://host:8443/a/b?…');
  });
});

describe('fetching an image from a URL', () => {
  let folder: string;
  let server: ImageServer;
  const body = randomBytes(3_000_001);
  const sha256 = createHash('sha256').update(body).digest('hex');
  const target = (): string => join(folder, 'target');
  const fetching = (path: string, more: Partial<FetchOptions> = {}) =>
    fetchToFile({
      url: `${server.url}${path}`,
      target: target(),
      allow: ['127.0.0.1'],
      maxBytes: 10_000_000,
      stallSeconds: 5,
      ...more,
    });
  const refuses = async (promise: Promise<unknown>, code: string, words: RegExp) => {
    await assert.rejects(promise, fails(code, words));
    assert.ok(!existsSync(target()), 'nothing is left');
  };

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'fetch-'));
    writeFileSync(join(folder, 'a.img'), body);
    server = await startImageServer(folder);
  });
  afterEach(async () => {
    await server.close();
    rmSync(folder, { recursive: true });
  });

  it('delivers the bytes, their number and their SHA-256, and tells how far it is', async () => {
    const seen: [number, number | null][] = [];
    assert.deepEqual(await fetching('/a.img', { progress: (done, total) => seen.push([done, total]) }), {
      size: body.length,
      sha256,
    });
    assert.ok(readFileSync(target()).equals(body));
    assert.deepEqual(seen[0], [0, body.length]);
    assert.deepEqual(seen.at(-1), [body.length, body.length]);
  });

  it('refuses loopback by address and by name, before a single request', async () => {
    for (const host of ['127.0.0.1', 'localhost', '2130706433', '[::ffff:127.0.0.1]'])
      await refuses(
        fetching('', { url: `http://${host}:${server.port}/a.img`, allow: [] }),
        'URL_REFUSED',
        /127\.0\.0\.1|7f00|::1/,
      );
    assert.equal(server.requests.length, 0);
  });

  it('connects to those addresses of a name that are allowed', async () => {
    assert.equal((await fetching('', { url: `http://localhost:${server.port}/a.img` })).size, body.length);
    assert.equal(server.requests[0]?.host, `localhost:${server.port}`);
  });

  it('asks for a name once, so that no second answer can lead it elsewhere', async () => {
    const { lookup } = dns;
    let asked = 0;
    // What a socket without a pinned address would ask, to be answered by whoever owns the name.
    dns.lookup = Object.assign(() => void asked++, lookup);
    try {
      await fetching('', { url: `http://localhost:${server.port}/a.img`, stallSeconds: 2 });
    } finally {
      dns.lookup = lookup;
    }
    assert.equal(asked, 0);
  });

  it('follows redirects and judges each one anew', async () => {
    server.behave('/moved', { redirect: '/a.img', status: 301 });
    assert.equal((await fetching('/moved')).size, body.length);
    rmSync(target());
    await using other = await startImageServer(folder);
    for (const [location, words] of [
      ['http://169.254.169.254/latest/meta-data/', /169\.254\.169\.254 \(link-local/],
      [`http://[::1]:${other.port}/a.img`, /loopback|not global/],
      ['http://0x7f000002/', /127\.0\.0\.2/],
      ['file:///etc/passwd', /only http/],
    ] as const) {
      server.behave('/away', { redirect: location });
      await refuses(fetching('/away'), 'URL_REFUSED', words);
    }
    assert.equal(other.requests.length, 0);
  });

  it('gives up after five redirects', async () => {
    server.behave('/loop', { redirect: '/loop' });
    await refuses(fetching('/loop'), 'URL_FAILED', /more than 5 redirects/);
    assert.equal(server.requests.length, 6);
  });

  it('sends user and password to their own origin only, and shows them to nobody', async () => {
    await using other = await startImageServer(folder);
    server.behave('/private.img', { auth: 'me:hunter2', redirect: `${other.url}/a.img` });
    const url = `http://me:hunter2@127.0.0.1:${server.port}/private.img?token=hunter2`;
    assert.equal((await fetching('', { url })).size, body.length);
    assert.equal(server.requests[0]?.authorization, `Basic ${btoa('me:hunter2')}`);
    assert.equal(other.requests[0]?.authorization, undefined);
    rmSync(target());
    other.behave('/a.img', { status: 403 });
    await refuses(fetching('', { url }), 'URL_FAILED', /403/);
    server.behave('/private.img', { status: 500 });
    await assert.rejects(
      fetching('', { url }),
      (error: Error) => !error.message.includes('hunter2') && !error.stack?.includes('hunter2'),
    );
  });

  it('takes a broken connection up again where it broke', async () => {
    server.behave('/a.img', { cutAfter: 1_000_000, times: 1 });
    assert.deepEqual(await fetching('/a.img'), { size: body.length, sha256 });
    assert.ok(readFileSync(target()).equals(body));
    const [, second] = server.requests;
    assert.match(second?.range ?? '', /^bytes=[1-9]\d*-$/);
  });

  it('begins anew where the server has no ranges, or has another file by now', async () => {
    for (const how of [{ noRange: true }, { newTag: true }]) {
      server.behave('/a.img', { ...how, cutAfter: 1_000_000, times: 1 });
      assert.deepEqual(await fetching('/a.img'), { size: body.length, sha256 });
      assert.ok(readFileSync(target()).equals(body));
      rmSync(target());
    }
  });

  it('gives up after three broken connections', async () => {
    server.behave('/a.img', { cutAfter: 1000 });
    await refuses(fetching('/a.img'), 'URL_FAILED', /in 3 tries/);
    assert.equal(server.requests.length, 3);
    await server.close();
    await refuses(fetching('/a.img'), 'URL_FAILED', /ECONNREFUSED.*in 3 tries/);
  });

  it('says the status that a server answered, without another try', async () => {
    await refuses(fetching('/missing.img'), 'URL_FAILED', /missing\.img: answered 404/);
    server.behave('/a.img', { status: 503 });
    await refuses(fetching('/a.img'), 'URL_FAILED', /answered 503/);
    assert.equal(server.requests.length, 2);
  });

  it('stops at the largest size it may take, announced or not', async () => {
    await refuses(fetching('/a.img', { maxBytes: 3_000_000 }), 'IMAGE_TOO_LARGE', /is 3000001 bytes; at most 3000000/);
    server.behave('/a.img', { noLength: true });
    await refuses(fetching('/a.img', { maxBytes: 3_000_000 }), 'IMAGE_TOO_LARGE', /is larger; at most 3000000/);
    assert.equal((await fetching('/a.img', { maxBytes: 3_000_001 })).sha256, sha256);
  });

  it('gives up on a server that sends nothing any more', async () => {
    server.behave('/a.img', { stallAfter: 500_000 });
    await refuses(
      fetching('/a.img', { stallSeconds: 0.3 }),
      'TRANSFER_STALLED',
      /(no byte|only \d+ bytes) came for 0\.3 s, after 500000 bytes/,
    );
    server.behave('/a.img', { stallAfter: 0 });
    await refuses(fetching('/a.img', { stallSeconds: 0.3 }), 'TRANSFER_STALLED', /after 0 bytes/);
  });

  it('waits for a slow server as long as bytes come', async () => {
    server.behave('/a.img', { bytesPerSecond: 4_000_000 });
    assert.equal((await fetching('/a.img', { stallSeconds: 0.3 })).sha256, sha256);
  });

  it('stops at once on cancel, also while it waits before another try', async () => {
    const cancel = new AbortController();
    server.behave('/a.img', { stallAfter: 500_000 });
    const progress = (done: number): void => void (done > 0 && cancel.abort());
    await refuses(fetching('/a.img', { signal: cancel.signal, progress }), 'CANCELLED', /cancelled/);
    await refuses(fetching('/a.img', { signal: cancel.signal }), 'CANCELLED', /cancelled/);
    const later = new AbortController();
    server.behave('/a.img', { cutAfter: 1000 });
    const waiting = fetching('/a.img', { signal: later.signal, progress: () => setTimeout(() => later.abort(), 100) });
    await refuses(waiting, 'CANCELLED', /cancelled/);
  });

  it('never writes over a file that was there before', async () => {
    writeFileSync(target(), 'precious');
    await assert.rejects(fetching('/a.img'), fails('IO_ERROR', /EEXIST/));
    assert.equal(readFileSync(target(), 'utf8'), 'precious');
  });

  it('verifies TLS certificates', async () => {
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
    await run('openssl', [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-keyout',
      key,
      '-out',
      cert,
      ...subject,
    ]);
    await using secure = await startImageServer(folder, {
      tls: { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') },
    });
    await refuses(fetching('', { url: `${secure.url}/a.img` }), 'URL_FAILED', /self-signed certificate/);
    assert.equal(secure.requests.length, 0);
  });
});
