import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { run } from '../../agent/host/run.ts';
import { CisternError } from '../../shared/errors.ts';

const fails = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof CisternError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, words);
  return true;
};
const node = process.execPath;
const alive = (pid: number): boolean =>
  existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

describe('run: a program on the host', () => {
  it('gives its output and exit code, and hands arguments over untouched by any shell', async () => {
    const result = await run('printf', ['%s|', '$HOME', '`id`', 'a b', '; exit 3']);
    assert.deepEqual(result, { stdout: '$HOME|`id`|a b|; exit 3|', stderr: '', exitCode: 0 });
  });

  it('runs in the C locale and does not see the environment of the agent', async () => {
    process.env['CISTERN_TEST_SECRET'] = 'hunter2';
    try {
      const { stdout } = await run('env', [], { env: { EXTRA: 'yes' } });
      assert.match(stdout, /^LC_ALL=C$/m);
      assert.match(stdout, /^EXTRA=yes$/m);
      assert.doesNotMatch(stdout, /hunter2/);
    } finally {
      delete process.env['CISTERN_TEST_SECRET'];
    }
  });

  it('feeds standard input', async () => assert.equal((await run('tr', ['a-z', 'A-Z'], { input: 'water' })).stdout, 'WATER'));

  it('says program, arguments, exit code and what stderr said when it fails', async () => {
    await assert.rejects(
      run('ls', ['--', '/no/such/place']),
      fails('TOOL_FAILED', /ls -- \/no\/such\/place: exit code 2: .*No such file/),
    );
  });

  it('takes exit codes that the caller knows to be no failure', async () => {
    assert.equal((await run('false', [], { accept: [0, 1] })).exitCode, 1);
  });

  it('names the package of a missing program, behind prlimit too', async () => {
    const env = { PATH: '/nowhere' };
    await assert.rejects(run('qemu-img', ['--version'], { env }), fails('TOOL_MISSING', /qemu-img.*qemu-utils/));
    const tools = mkdtempSync(join(tmpdir(), 'run-'));
    try {
      const { stdout } = await run('which', ['prlimit']);
      await run('ln', ['-s', '--', stdout.trim(), join(tools, 'prlimit')]);
      await assert.rejects(
        run('qemu-img', ['--version'], { env: { PATH: tools }, limits: {} }),
        fails('TOOL_MISSING', /qemu-img.*qemu-utils/),
      );
    } finally {
      rmSync(tools, { recursive: true });
    }
  });

  it('stops a program at its deadline, also one that ignores SIGTERM', async () => {
    const stubborn = `process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log(process.pid)`;
    let pid = 0;
    const began = Date.now();
    const running = run(node, ['-e', stubborn], { timeoutSeconds: 1, onStdout: text => void (pid = Number(text)) });
    await assert.rejects(running, fails('TIMEOUT', /deadline of 1 s/));
    assert.ok(pid > 0 && !alive(pid), 'the program is gone');
    assert.ok(Date.now() - began < 8000);
  });

  it('kills the program on cancel and throws CANCELLED', async () => {
    const cancel = new AbortController();
    let pid = 0;
    const onStdout = (text: string): void => {
      pid = Number(text);
      cancel.abort();
    };
    const running = run(node, ['-e', 'console.log(process.pid); setInterval(() => {}, 1000)'], {
      signal: cancel.signal,
      onStdout,
    });
    await assert.rejects(running, fails('CANCELLED', /cancelled/));
    assert.ok(pid > 0 && !alive(pid), 'the program is gone');
    await assert.rejects(run('true', [], { signal: cancel.signal }), fails('CANCELLED', /cancelled/));
  });

  it('caps what a program may say', async () => {
    await assert.rejects(
      run('head', ['-c', '200000', '/dev/zero'], { maxOutput: 100_000 }),
      fails('TOOL_FAILED', /more than the 100000 bytes/),
    );
  });

  it('enforces limits on CPU, file size and memory', async () => {
    await assert.rejects(run(node, ['-e', 'for (;;);'], { limits: { cpuSeconds: 1 } }), fails('TOOL_FAILED', /SIGXCPU|SIGKILL/));
    const { stdout } = await run('cat', ['/proc/self/limits'], { limits: { addressSpace: 2 ** 30, fileSize: 4096 } });
    assert.match(stdout, /Max file size +4096 /);
    assert.match(stdout, /Max address space +1073741824 /);
    assert.match(stdout, /Max core file size +0 /);
  });

  it('streams output to a consumer; one that throws ends the program with its own error', async () => {
    let seen = '';
    await run('printf', ['abc'], { consume: async stdout => void (seen = await text(stdout)) });
    assert.equal(seen, 'abc');
    const full = new CisternError('IMAGE_TOO_LARGE', 'too much');
    const consume = async (stdout: AsyncIterable<unknown>): Promise<void> => {
      for await (const _ of stdout) throw full;
    };
    await assert.rejects(run('cat', ['/dev/zero'], { consume, timeoutSeconds: 10 }), full);
  });
});
