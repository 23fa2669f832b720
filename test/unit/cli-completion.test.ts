import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startTestController, type TestController } from './cli-controller.ts';
import { cli, envFor, startCli } from './cli-run.ts';

/** Runs bash with `script` on its standard input; `cistern` is on the PATH. */
async function bash(script: string, env: NodeJS.ProcessEnv, cwd: string): Promise<string> {
  const child = spawn('bash', ['--norc', '--noprofile', '-s'], { env: { ...env, PATH: `${cwd}:${process.env.PATH}` }, cwd });
  child.stdin.end(script);
  child.stderr.pipe(process.stderr);
  return (await child.stdout.setEncoding('utf8').toArray()).join('');
}

describe('cistern: shell completion', () => {
  const dir = mkdtempSync(join(tmpdir(), 'cistern-cli-'));
  let controller: TestController;
  let script: string;
  before(async () => {
    controller = await startTestController();
    script = (await cli(controller, 'completion', 'bash')).stdout;
    symlinkSync(resolve('controller/cli/cistern.js'), join(dir, 'cistern'));
    writeFileSync(join(dir, 'disk one.qcow2'), '');
  });
  after(async () => {
    await controller[Symbol.asyncDispose]();
    rmSync(dir, { recursive: true });
  });

  /** What bash offers for each of these lines, whose last word is being typed. */
  async function complete(lines: string[][], env = envFor(controller)): Promise<string[][]> {
    const calls = lines.map(words => {
      const typed = ['cistern', ...words].map(word => `'${word}'`).join(' ');
      return `COMP_WORDS=(${typed}); COMP_CWORD=${words.length}; _cistern; printf '%s|' "\${COMPREPLY[@]}"; echo`;
    });
    const output = await bash(`${script}\n${calls.join('\n')}\n`, { ...env, HOME: dir }, dir);
    return output
      .trimEnd()
      .split('\n')
      .map(line => line.split('|').filter(Boolean));
  }

  it('offers nouns, verbs, options and their words without asking anybody', async () => {
    const before = controller.seen.length;
    const [nouns, verbs, deeper, options, words, afterOption, shells, files, nothing] = await complete([
      ['i'],
      ['image', ''],
      ['image', 'cache', ''],
      ['volume', 'create', '--k'],
      ['volume', 'list', '--kind', ''],
      ['host', 'list', '--status', 'connected', '--st'],
      ['completion', ''],
      ['image', 'import', 'x', '--file', 'disk'],
      ['volume', 'create', 'x', '--size', ''],
    ]);
    assert.deepEqual(nouns, ['image']);
    assert.deepEqual(verbs, ['list', 'show', 'import', 'rename', 'verify', 'delete', 'replicate', 'replica', 'cache']);
    assert.deepEqual(deeper, ['list', 'add', 'verify', 'evict']);
    assert.deepEqual(options, ['--kind']);
    assert.deepEqual(words, ['root', 'data']);
    assert.deepEqual(afterOption, ['--status', '--state']);
    assert.deepEqual(shells, ['bash', 'zsh', 'fish']);
    assert.deepEqual(files, ['disk one.qcow2']);
    assert.deepEqual(nothing ?? [], []);
    assert.equal(controller.seen.length, before);
  });

  it('offers the names that the controller has', async () => {
    const [image, host, pool, volumes, cluster] = await complete([
      ['image', 'show', ''],
      ['volume', 'create', 'x', '--host', ''],
      ['image', 'cache', 'add', 'debian12', '--primary-storage', 'f'],
      ['volume', 'delete', 'web-0', 'web-1', 'w'],
      ['primary-storage', 'attach', 'fast', ''],
    ]);
    assert.deepEqual([image, host, pool, volumes, cluster], [['debian12'], ['kvm1'], ['fast'], ['web-1'], ['default']]);
  });

  it('is silent when the controller is down, refuses, or is not configured right', async () => {
    const envs = [
      { ...envFor(controller), CISTERN_URL: 'http://127.0.0.1:1' },
      { ...envFor(controller), CISTERN_TOKEN: 'wrong' },
      { ...envFor(controller), CISTERN_URL: 'nonsense' },
    ];
    for (const env of envs) {
      for (const kind of ['image', 'operation', 'nonsense']) {
        const started = startCli(['__complete', kind], env);
        assert.deepEqual([await started.code, started.stdout(), started.stderr()], [0, '', '']);
      }
    }
  });

  it('exists for zsh and fish with the same nouns, options and names', async () => {
    const zsh = (await cli(controller, 'completion', 'zsh')).stdout;
    assert.match(zsh, /^#compdef cistern/);
    assert.match(zsh, /_cistern_values\[image\/cache\/add:--primary-storage\]='@primary-storage'/);
    const fish = (await cli(controller, 'completion', 'fish')).stdout;
    assert.match(
      fish,
      /complete -c cistern -n '__cistern_at "image cache" "list" "add" "verify" "evict"' -a 'evict' -d 'Remove an image/,
    );
    assert.match(fish, /__cistern_at "volume create"' -l image .* -a '\(cistern __complete image 2>\/dev\/null\)'/);
    assert.match(fish, /__cistern_at "image import"' -l file .* -r -F/);
  });
});
