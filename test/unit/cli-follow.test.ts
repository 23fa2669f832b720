import assert from 'node:assert/strict';
import { progressLine } from '../../controller/cli/progress.ts';
import { CisternError, toProblem } from '../../shared/errors.ts';
import type { Operation } from '../../shared/model.ts';
import { sendOperations, startTestController } from './cli-controller.ts';
import { cli, envFor, startCli } from './cli-run.ts';
import { ids, operation, running } from './cli-samples.ts';

const progress = (stage: string, done: number): Partial<Operation> => ({
  progress: { stage, done, total: 2 ** 30, unit: 'bytes', rate: 100 * 2 ** 20, eta: 8 },
});
const command = ['image', 'import', 'debian12', '--url', 'http://example.org/d.qcow2'];
const failure = new CisternError('IMAGE_BACKING_FILE', 'debian12: the header names "base.qcow2"');
const transfer = {
  lane: 'ranges',
  streams: 4,
  parts: 128,
  zeroParts: 64,
  bytes: 2 ** 30,
  zeroBytes: 2 ** 29,
  resumed: 2 ** 28,
  moved: 2 ** 28,
  retries: 1,
  seconds: 2,
};

/** An import whose operation stays running until `end` is called; cancelling ends it. */
async function startLongWork() {
  const ended = Promise.withResolvers<Operation>();
  const cancelled: string[] = [];
  const controller = await startTestController({
    importImage: () => running(),
    operationEvents: async (_input, { res }) => {
      res.writeHead(200, { 'Content-Type': 'text/event-stream' });
      res.write(`event: operation\ndata: ${JSON.stringify(running(progress('download', 2 ** 29)))}\n\n`);
      res.end(`event: operation\ndata: ${JSON.stringify(await ended.promise)}\n\n`);
    },
    cancelOperation: ({ params }) => {
      cancelled.push(params.ref);
      ended.resolve(operation({ state: 'cancelled' }));
      return running({ state: 'cancelling' });
    },
  });
  return { controller, cancelled, end: ended.resolve };
}

describe('cistern: following an operation', () => {
  it('tells stages as lines where there is no terminal, and at the end what came out', async () => {
    await using controller = await startTestController({
      importImage: () => running(),
      operationEvents: (_input, { res }) =>
        sendOperations(
          res,
          running(progress('download', 0)),
          running(progress('download', 2 ** 29)),
          running(progress('convert', 10)),
          operation({ output: { size: 2 ** 29, digest: 'abc', transfers: [{ storeId: ids.store, summary: transfer }] } }),
        ),
    });
    const { code, stdout, stderr } = await cli(controller, ...command);
    assert.equal(code, 0);
    assert.equal(
      stderr,
      'image.import: running\nimage.import: download (1.0 GiB)\nimage.import: convert (1.0 GiB)\nimage.import: succeeded\n',
    );
    assert.equal(
      stdout,
      `image.import debian12 succeeded in 12s\n  image     ${ids.image}\n  size      512.0 MiB\n  digest    abc\n  transfer  ranges, 4 streams, 128 parts (64 of zeros, 512.0 MiB), 256.0 MiB were there from before, 256.0 MiB of 1.0 GiB moved in 2.0s, 512.0 MiB/s, 1 retry\n`,
    );
  });

  it('asks for the operation where its event stream breaks', async () => {
    let asked = 0;
    await using controller = await startTestController({
      importImage: () => running(),
      operationEvents: (_input, { res }) => void res.destroy(),
      getOperation: () => (++asked < 3 ? running(progress('verify', asked)) : operation()),
    });
    const { code, stderr } = await cli(controller, ...command);
    assert.equal(code, 0);
    assert.equal(asked, 3);
    assert.match(stderr, /verify/);
    assert.deepEqual(controller.last('getOperation').query, { wait: 2 });
  });

  it('lives through a controller that is away for a moment', async () => {
    let asked = 0;
    await using controller = await startTestController({
      importImage: () => running(),
      operationEvents: (_input, { res }) => void res.destroy(),
      getOperation: (_input, { res }) => {
        if (++asked === 1) res.destroy();
        return operation();
      },
    });
    assert.equal((await cli(controller, ...command)).code, 0);
    assert.equal(asked, 2);
  });

  it('ends with 1 and the problem when the operation failed', async () => {
    await using controller = await startTestController({
      importImage: () => operation({ state: 'failed', output: null, error: toProblem(failure) }),
    });
    const { code, stdout, stderr } = await cli(controller, ...command);
    assert.equal(code, 1);
    assert.equal(stdout, '');
    assert.match(
      stderr,
      /^image\.import: failed\ncistern: The image stands on another file \(IMAGE_BACKING_FILE\)\ndebian12: the header names "base\.qcow2"\nWhat to do: Flatten it first/,
    );
    assert.doesNotMatch(stderr, /operation retry/);
    const json = await cli(controller, ...command, '--output', 'json');
    assert.equal(json.code, 1);
    assert.equal((JSON.parse(json.stdout) as Operation).error?.code, 'IMAGE_BACKING_FILE');
  });

  it('names the retry where trying again may help', async () => {
    const error = toProblem(new CisternError('STORE_UNREACHABLE', 'vault1 port 22: no route'));
    await using controller = await startTestController({
      importImage: () => operation({ state: 'failed', output: null, error }),
    });
    const { stderr } = await cli(controller, ...command);
    assert.ok(stderr.endsWith(`Then: cistern operation retry ${ids.operation}\n`), stderr);
  });

  it('ends with 130 when the operation was cancelled', async () => {
    await using controller = await startTestController({ importImage: () => operation({ state: 'cancelled' }) });
    const { code, stderr } = await cli(controller, ...command);
    assert.equal(code, 130);
    assert.match(stderr, /was cancelled; what it had begun is undone/);
  });

  it('does not follow with --no-wait, and prints the id', async () => {
    await using controller = await startTestController({ importImage: () => running() });
    const { code, stdout, stderr } = await cli(controller, ...command, '--no-wait');
    assert.deepEqual([code, stdout, stderr], [0, `${ids.operation}\n`, '']);
  });

  it('sends a start whose answer got lost once more, with the same idempotency key', async () => {
    let times = 0;
    await using controller = await startTestController({
      importImage: (_input, { res }) => {
        if (++times === 1) res.destroy();
        return operation();
      },
    });
    assert.equal((await cli(controller, ...command)).code, 0);
    const keys = controller.seen
      .filter(request => request.route === 'importImage')
      .map(request => request.headers['idempotency-key']);
    assert.equal(keys.length, 2);
    assert.ok(keys[0] && keys[0] === keys[1]);
  });

  it('leaves the operation at Ctrl-C where there is no terminal, and says how to follow it again', async () => {
    const { controller, cancelled } = await startLongWork();
    await using _ = controller;
    const started = startCli(command, envFor(controller));
    await started.stderrHas('download');
    started.interrupt();
    assert.equal(await started.code, 130);
    assert.match(started.stderr(), new RegExp(`goes on. Follow it again with: cistern operation wait ${ids.operation}`));
    assert.deepEqual(cancelled, []);
  });

  it('shows a bar on a terminal', async () => {
    const { controller, end } = await startLongWork();
    await using _ = controller;
    const started = startCli(command, envFor(controller), true);
    await started.stderrHas('image.import  download  [############------------]  50%  512.0 MiB / 1.0 GiB  100.0 MiB/s  ETA 8s');
    end(operation());
    assert.equal(await started.code, 0);
    assert.match(started.stdout(), /^image\.import debian12 succeeded in 12s/);
  });

  it('asks at Ctrl-C on a terminal; y cancels and waits for the undo', async () => {
    const { controller, cancelled } = await startLongWork();
    await using _ = controller;
    const started = startCli(command, envFor(controller), true);
    await started.stderrHas('50%');
    started.interrupt();
    await started.stderrHas(`Cancel operation ${ids.operation} (image.import)? [y/N]`);
    started.stdin.write('y\r');
    assert.equal(await started.code, 130);
    assert.deepEqual(cancelled, [ids.operation]);
    assert.match(started.stderr(), /was cancelled; what it had begun is undone/);
  });

  for (const [answer, keys] of [
    ['n', 'n\r'],
    ['nothing', '\r'],
    ['a second Ctrl-C', '\u0003'],
  ] as const) {
    it(`leaves the operation when the answer is ${answer}`, async () => {
      const { controller, cancelled } = await startLongWork();
      await using _ = controller;
      const started = startCli(command, envFor(controller), true);
      await started.stderrHas('50%');
      started.interrupt();
      await started.stderrHas('[y/N]');
      started.stdin.write(keys);
      assert.equal(await started.code, 130);
      assert.deepEqual(cancelled, []);
      assert.match(started.stderr(), /cistern operation wait/);
    });
  }

  it('takes the question back when the operation ends meanwhile', async () => {
    const { controller, cancelled, end } = await startLongWork();
    await using _ = controller;
    const started = startCli(command, envFor(controller), true);
    await started.stderrHas('50%');
    started.interrupt();
    await started.stderrHas('[y/N]');
    end(operation());
    assert.equal(await started.code, 0);
    assert.deepEqual(cancelled, []);
  });

  it('leaves at the second Ctrl-C while it waits for the undo', async () => {
    const cancelled = Promise.withResolvers<void>();
    await using controller = await startTestController({
      importImage: () => running(),
      operationEvents: (_input, { res }) => {
        res.writeHead(200, { 'Content-Type': 'text/event-stream' });
        res.write(`event: operation\ndata: ${JSON.stringify(running(progress('download', 2 ** 29)))}\n\n`);
      },
      cancelOperation: () => {
        cancelled.resolve();
        return running({ state: 'cancelling' });
      },
    });
    const started = startCli(command, envFor(controller), true);
    await started.stderrHas('50%');
    started.interrupt();
    await started.stderrHas('[y/N]');
    started.stdin.write('y\r');
    await cancelled.promise;
    started.interrupt();
    assert.equal(await started.code, 130);
    assert.match(started.stderr(), /cistern operation wait/);
  });

  it('draws lines that fit, with what is known', () => {
    const at = { stage: 'download', done: 50, total: 200, unit: 'items' as const, rate: null, eta: null };
    assert.equal(progressLine('x', at, 65, 200), 'x  download  [######------------------]  25%  50 / 200  1m5s');
    assert.equal(progressLine('x', { ...at, total: null }, 5, 200), 'x  download  50  5s');
    assert.equal(
      progressLine('x', { ...at, done: 40, total: 100, unit: 'percent' }, 5, 200),
      'x  download  [#########---------------]  40%  5s',
    );
    assert.equal(progressLine('x', at, 65, 20).length, 20);
  });
});

describe('cistern: events', () => {
  it('prints past ones, then those to come, each once, as lines', async () => {
    const event = (seq: number) => ({
      seq,
      at: '2030-01-01T00:00:00Z',
      type: 'host.connected',
      resource: null,
      message: `number ${seq}`,
      by: null,
    });
    await using controller = await startTestController({
      listEvents: ({ query }, { req, res }) => {
        if (req.headers.accept !== 'text/event-stream') return { items: [event(1), event(2)], next: null };
        assert.equal(query.after, 2);
        assert.equal(req.headers['last-event-id'], '2');
        res.writeHead(200, { 'Content-Type': 'text/event-stream' });
        for (const seq of [2, 3, 4]) res.write(`id: ${seq}\ndata: ${JSON.stringify(event(seq))}\n\n`);
        return undefined as never;
      },
    });
    const started = startCli(['event', 'list', '--follow', '--output', 'json'], envFor(controller));
    const plain = startCli(['event', 'list', '--follow'], envFor(controller));
    await Promise.all([started.stdoutHas('number 4'), plain.stdoutHas('number 4')]);
    started.interrupt();
    plain.interrupt();
    assert.deepEqual([await started.code, await plain.code], [0, 0]);
    assert.deepEqual(
      started
        .stdout()
        .trim()
        .split('\n')
        .map(line => (JSON.parse(line) as { seq: number }).seq),
      [1, 2, 3, 4],
    );
    assert.match(plain.stdout(), /^2030-01-01T00:00:00Z {2}host\.connected {12}number 1\n/);
  });
});
