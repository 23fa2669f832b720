import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { backupDrivers } from '../../agent/backup/registry.ts';
import { AgentConfig } from '../../agent/config.ts';
import { primaryDrivers } from '../../agent/primary/registry.ts';
import { ControllerConfig } from '../../controller/config.ts';
import { COMMANDS } from '../../shared/commands/index.ts';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import type { Routes } from '../../shared/contract/route.ts';
import { ERRORS } from '../../shared/errors.ts';
import { openApi } from '../../shared/http/openapi.ts';
import { errorsDocument } from '../../shared/setup/errors-doc.ts';
import { importCycles, read, repositoryFiles, sourceFiles, type SourceFile } from './source-tree.ts';

const files = sourceFiles();
const product = files.filter(file => !file.path.startsWith('test/'));
const inside = (folder: string): SourceFile[] => files.filter(file => file.path.startsWith(`${folder}/`));

/** `FILE imports TARGET` for every import out of `from` that goes where it must not. Everybody may read the version in package.json. */
const imports = (from: SourceFile[], refused: (target: string, file: SourceFile) => boolean): string[] =>
  from.flatMap(file =>
    file.imports
      .filter(({ own, target }) => own && target !== 'package.json' && refused(target, file))
      .map(({ target }) => `${file.path} imports ${target}`),
  );

/** Where `pattern` stands in files, as `FILE: MATCH`. */
const found = (among: { path: string; text: string }[], pattern: RegExp): string[] =>
  among.flatMap(({ path, text }) => [...text.matchAll(pattern)].map(match => `${path}: ${match[0]}`));

describe('architecture: who may import whom', () => {
  it('shared stands on nothing of ours', () => {
    assert.deepEqual(
      imports(inside('shared'), target => !target.startsWith('shared/')),
      [],
    );
  });

  it('the controller knows nothing of the agent but the contract; only the all-in-one entry composes both', () => {
    const controller = inside('controller').filter(file => file.path !== 'controller/all-in-one.ts');
    assert.deepEqual(
      imports(controller, target => !/^(controller|shared)\//.test(target)),
      [],
    );
    assert.deepEqual(
      imports(controller, target => target === 'controller/all-in-one.ts'),
      [],
    );
  });

  it('the agent knows nothing of the controller but the contract', () => {
    assert.deepEqual(
      imports(inside('agent'), target => !/^(agent|shared)\//.test(target)),
      [],
    );
  });

  it('a driver is reached through its registry only', () => {
    const isDriver = (path: string): boolean => drivers.some(driver => driver.path === path);
    assert.deepEqual(
      imports(product, (target, file) => isDriver(target) && file.path !== `${dirname(target)}/registry.ts`),
      [],
    );
  });

  it('primary and backup storages do not know each other, and transfers know neither', () => {
    assert.deepEqual(
      imports(inside('agent/primary'), target => target.startsWith('agent/backup/')),
      [],
    );
    assert.deepEqual(
      imports(inside('agent/backup'), target => target.startsWith('agent/primary/')),
      [],
    );
    assert.deepEqual(
      imports(inside('agent/transfer'), target => /^agent\/(primary|backup|commands|worker)\//.test(target)),
      [],
    );
  });

  it('no file imports itself by a detour', () => {
    assert.deepEqual(
      importCycles(files).map(cycle => cycle.join(' -> ')),
      [],
    );
  });

  it('every import of ours leads to a file', () => {
    const there = new Set(files.map(file => file.path));
    assert.deepEqual(
      imports(files, target => target.endsWith('.ts') && !there.has(target)),
      [],
    );
  });

  it('the product needs no package that is for development only', () => {
    const { dependencies } = manifest();
    const used = product
      .filter(file => !file.path.startsWith('shared/setup/'))
      .flatMap(file =>
        file.imports.filter(({ own, target }) => !own && !target.startsWith('node:')).map(({ target }) => ({ file, target })),
      );
    assert.deepEqual(
      used.filter(({ target }) => !(target in dependencies)).map(({ file, target }) => `${file.path} imports ${target}`),
      [],
    );
    assert.deepEqual(
      Object.keys(dependencies).filter(name => !used.some(({ target }) => target === name)),
      [],
      'dependencies that nothing imports',
    );
  });
});

/** Files that export a driver, with the name of what they export. */
const drivers = product.flatMap(({ path, text }) =>
  [...text.matchAll(/^export const (\w+): (Primary|Backup)Driver\b/gm)].map(match => ({
    path,
    name: match[1]!,
    kind: match[2]!,
  })),
);

describe('architecture: drivers, errors, commands and routes', () => {
  it('every driver file is in its registry', () => {
    assert.ok(drivers.length >= 4);
    for (const { path, name } of drivers)
      assert.match(
        read(`${dirname(path)}/registry.ts`),
        new RegExp(`\\[[^\\]]*\\b${name}\\b`),
        `${name} of ${path} is missing in the registry`,
      );
    assert.equal(drivers.length, primaryDrivers.length + backupDrivers.length);
  });

  it('every driver is in the README with all of its settings', async () => {
    const { z } = await import('zod');
    const [primary, backup] = ['Primary', 'Backup'].map(
      role => read('README.md').split(`\n| ${role} storage `)[1]!.split('\n\n')[0]!,
    );
    const told = [
      primaryDrivers.map(driver => ({ driver, table: primary! })),
      backupDrivers.map(driver => ({ driver, table: backup! })),
    ];
    for (const { driver, table } of told.flat()) {
      const { type, config } = driver;
      const row = table.split('\n').find(line => line.startsWith(`| \`${type}\` `));
      assert.ok(row, `README.md has no row for ${type}`);
      for (const setting of Object.keys(z.toJSONSchema(config, { io: 'input' }).properties ?? {}))
        assert.ok(row.includes(`\`${setting}\``), `README.md does not tell the setting ${setting} of ${type}`);
    }
  });

  it('every setting of the services is in the README', () => {
    for (const config of [AgentConfig, ControllerConfig]) {
      assert.deepEqual(
        Object.keys(config.shape).filter(key => !read('README.md').includes(`\n| \`${key}\` `)),
        [],
      );
    }
  });

  it('every promise in the README names a test that is there', () => {
    const [, table = ''] = read('README.md').split('## What holds under which fault');
    const named = [...table.split('\n## ')[0]!.matchAll(/\| `([^`]+\.ts)`: (.+?) +\|$/gm)];
    assert.ok(named.length > 30, `only ${named.length} promises`);
    assert.deepEqual(
      named.filter(([, file, title]) => !read(`test/${file}`).includes(title!)).map(([, file, title]) => `${file}: ${title}`),
      [],
    );
  });

  it('every error code is thrown somewhere', () => {
    const users = product
      .filter(file => !file.path.startsWith('shared/error-codes'))
      .map(file => file.text)
      .join('\n');
    assert.deepEqual(
      Object.keys(ERRORS).filter(code => !new RegExp(`\\b${code}\\b`).test(users)),
      [],
    );
  });

  it('shared/ERRORS.md tells of every error what happened and what to do (npm run docs:errors)', async () => {
    assert.equal(read('shared/ERRORS.md'), await errorsDocument());
  });

  it('every command has a kind of its own', () => {
    const kinds = COMMANDS.map(c => c.kind);
    assert.deepEqual(kinds, [...new Set(kinds)]);
  });

  for (const [name, table] of Object.entries({ agent: agentRoutes, controller: controllerRoutes }) as [string, Routes][]) {
    it(`every route of the ${name} is in its OpenAPI document under its own name`, () => {
      const { paths } = openApi(table, { title: name, version: '0', description: '' }) as {
        paths: Record<string, Record<string, { operationId: string }>>;
      };
      const ids = Object.values(paths).flatMap(path => Object.values(path).map(({ operationId }) => operationId));
      assert.deepEqual(ids.toSorted(), Object.keys(table).toSorted());
    });
  }
});

describe('architecture: qemu programs', () => {
  const agent = inside('agent');

  it('only one function starts qemu-img, only the rbd driver qemu-nbd, and nothing another program of qemu', () => {
    assert.deepEqual(
      found(agent, /(?:\brun\w*|\bexeca|\bspawn\w*|\bcaged)\(\s*'qemu-[\w-]+'/g).filter(
        call => !/^agent\/host\/qemu-img(-run)?\.ts/.test(call),
      ),
      [],
    );
    assert.deepEqual(found(agent, /\bqemu-(?:io|storage-daemon|system-\w+)\b/g), []);
    // it opens raw bytes only, whatever they hold
    const tables = ['agent/host/facts.ts', 'agent/host/run.ts'];
    assert.deepEqual(
      agent.filter(({ path, text }) => /'qemu-nbd'/.test(text) && !tables.includes(path)).map(({ path }) => path),
      ['agent/ceph/server.ts'],
    );
    assert.match(read('agent/ceph/server.ts'), /JSON\.stringify\(\{ driver: 'raw', file \}\)/);
  });

  it('every call of it says the format of every disk that it opens, and of what a new one stands on', () => {
    const calls = found(agent, /\bqemuImg\(\s*\[[^\]]*\]/g);
    assert.ok(calls.length >= 6, `${calls.length} calls found`);
    // a disk that is there is named by diskName, which takes no path without a format; a new one by -f or -O
    const says = (call: string): boolean =>
      (/'create'/.test(call) ? /'-f', 'qcow2'/.test(call) : /diskName\(/.test(call)) && !/'convert'/.test(call);
    assert.deepEqual(
      calls.filter(call => !says(call)),
      [],
    );
    // and each that opens one does so in a cage
    const caged = found(agent, /\bqemuImg\(\s*\[[^\]]*\bdiskName\([^;]*?\bcage\b/g);
    assert.equal(caged.length, calls.filter(call => call.includes('diskName(')).length);
    const source = read('agent/host/qemu-img.ts');
    assert.match(source, /const args = \['convert', '-p', '-O', targetFormat\]/);
    assert.deepEqual(
      [...source.matchAll(/'-b'/g)].length,
      [...source.matchAll(/'-F', backing\.format, '-b', backing\.name/g)].length,
    );
  });
});

describe('architecture: habits', () => {
  it('no test is left out', () => {
    assert.deepEqual(
      found(inside('test'), /\b(?:it|describe|context)\.(?:only|skip)\b|\bthis\.skip\(|\bx(?:it|describe)\(/g),
      [],
    );
  });

  it('files are short enough to read: 400 lines at most', () => {
    assert.deepEqual(
      files.filter(file => file.text.split('\n').length > 400).map(file => file.path),
      [],
    );
  });

  it('no check is switched off, and nothing is left for later', () => {
    assert.deepEqual(
      found(
        files.filter(file => file.path !== 'test/unit/architecture.test.ts'),
        /eslint-disable|@ts-(?:ignore|expect-error|nocheck)|\b(?:TODO|FIXME|XXX)\b/g,
      ),
      [],
    );
  });

  it('nothing of the machine it was written on shows in it', () => {
    const texts = repositoryFiles().map(path => ({ path, text: read(path) }));
    assert.deepEqual(found(texts, new RegExp(['', 'work', '(main|shared)'].join('/'), 'g')), []);
    assert.deepEqual(found([{ path: 'package-lock.json', text: read('package-lock.json') }], /"resolved": "[^"]*"/g), []);
  });

  it('every version in package.json is exact', () => {
    const { dependencies, devDependencies, optionalDependencies } = manifest();
    const all = Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies });
    assert.deepEqual(
      all.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version)),
      [],
    );
  });
});

type Versions = Record<string, string>;
const manifest = () =>
  JSON.parse(read('package.json')) as { dependencies: Versions; devDependencies: Versions; optionalDependencies: Versions };
