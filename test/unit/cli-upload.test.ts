import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CisternError, toProblem } from '../../shared/errors.ts';
import type { Operation } from '../../shared/model.ts';
import { startTestController } from './cli-controller.ts';
import { cli, envFor, startCli } from './cli-run.ts';
import { ids, operation, running } from './cli-samples.ts';

const SIZE = 5 * 2 ** 20 + 17;

/** A controller whose import waits for an upload and ends as `judge` says of its bytes. */
async function startImport(judge: (bytes: Buffer) => Operation) {
  const ended = Promise.withResolvers<Operation>();
  const received: Buffer[] = [];
  const controller = await startTestController({
    importImage: () => running(),
    operationEvents: async (_input, { res }) => {
      res.writeHead(200, { 'Content-Type': 'text/event-stream' });
      res.write(`event: operation\ndata: ${JSON.stringify(running())}\n\n`);
      res.end(`event: operation\ndata: ${JSON.stringify(await ended.promise)}\n\n`);
    },
    uploadImage: async (_input, { req }) => {
      for await (const chunk of req) received.push(chunk as Buffer);
      ended.resolve(judge(Buffer.concat(received)));
      return { received: Buffer.concat(received).length };
    },
    getOperation: () => running(),
    cancelOperation: () => {
      ended.resolve(operation({ state: 'cancelled' }));
      return running({ state: 'cancelling' });
    },
  });
  return { controller, end: ended.resolve, received: () => Buffer.concat(received) };
}

describe('cistern: importing a file of this machine', () => {
  const dir = mkdtempSync(join(tmpdir(), 'cistern-cli-'));
  const file = join(dir, 'disk.raw');
  const bytes = Buffer.alloc(SIZE, 'cistern!');
  before(() => writeFileSync(file, bytes));
  after(() => rmSync(dir, { recursive: true }));

  it('announces its size and streams it whole', async () => {
    const { controller, received } = await startImport(all => operation({ output: { size: all.length } }));
    await using _ = controller;
    const { code, stdout, stderr } = await cli(controller, 'image', 'import', 'mine', '--file', file, '--source-format', 'raw');
    assert.equal(code, 0, stderr);
    assert.ok(received().equals(bytes));
    assert.deepEqual((controller.last('importImage').body as { source: unknown }).source, { type: 'upload', size: SIZE });
    assert.equal(controller.last('uploadImage').headers['content-length'], String(SIZE));
    assert.match(stdout, /size {3}5\.0 MiB/);
    assert.match(stderr, /image\.import: upload \(5\.0 MiB\)/);
  });

  it('reads standard input for -, whose size nobody knows', async () => {
    const { controller, received } = await startImport(() => operation());
    await using _ = controller;
    const started = startCli(['image', 'import', 'mine', '--file', '-'], envFor(controller));
    started.stdin.end(bytes);
    assert.equal(await started.code, 0);
    assert.ok(received().equals(bytes));
    assert.deepEqual((controller.last('importImage').body as { source: unknown }).source, { type: 'upload' });
    assert.equal(controller.last('uploadImage').headers['content-length'], undefined);
  });

  it('tells why the import failed, not that its connection broke, and sends no more', async () => {
    const error = toProblem(new CisternError('IMAGE_FORMAT_UNKNOWN', 'mine: no known header'));
    const failed = operation({ state: 'failed', output: null, error });
    const ended = Promise.withResolvers<void>();
    await using controller = await startTestController({
      importImage: () => running(),
      operationEvents: async (_input, { res }) => {
        await ended.promise;
        res.writeHead(200, { 'Content-Type': 'text/event-stream' });
        res.end(`event: operation\ndata: ${JSON.stringify(failed)}\n\n`);
      },
      uploadImage: (_input, { req }) => {
        req.once('data', () => {
          req.socket.destroy();
          ended.resolve();
        });
        return new Promise<never>(() => undefined);
      },
      getOperation: () => failed,
    });
    const started = startCli(['image', 'import', 'mine', '--file', '-'], envFor(controller));
    started.stdin.write(bytes);
    assert.equal(await started.code, 1);
    assert.match(started.stderr(), /IMAGE_FORMAT_UNKNOWN/);
    assert.doesNotMatch(started.stderr(), /CONTROLLER_UNREACHABLE/);
  });

  it('cancels the import when the file cannot be sent, so that it does not wait for ever', async () => {
    const { controller } = await startImport(() => operation());
    await using _ = controller;
    const started = startCli(['image', 'import', 'mine', '--file', '-'], envFor(controller));
    started.stdin.write('some');
    await started.stderrHas('upload');
    started.stdin.destroy(new Error('the pipe broke'));
    assert.equal(await started.code, 1);
    assert.equal(controller.last('cancelOperation').route, 'cancelOperation');
    assert.match(started.stderr(), /the pipe broke/);
  });

  it('refuses what cannot be read before anything is started', async () => {
    const { controller } = await startImport(() => operation());
    await using _ = controller;
    for (const [path, why] of [
      ['/no/such/file', /ENOENT/],
      [dir, /not a regular file/],
    ] as const) {
      const { code, stderr } = await cli(controller, 'image', 'import', 'mine', '--file', path);
      assert.equal(code, 1);
      assert.match(stderr, why);
    }
    assert.deepEqual(controller.seen, []);
  });

  it('cancels at Ctrl-C where there is no terminal: an upload cannot go on without its sender', async () => {
    const { controller } = await startImport(() => operation());
    await using _ = controller;
    const started = startCli(['image', 'import', 'mine', '--file', '-'], envFor(controller));
    started.stdin.write('some');
    await started.stderrHas('upload');
    started.interrupt();
    assert.equal(await started.code, 130);
    assert.deepEqual(controller.last('cancelOperation').params, { ref: ids.operation });
    assert.match(started.stderr(), /was cancelled/);
  });
});
