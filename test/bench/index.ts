/** `npm run -s bench -- NAME [--json]`: measures and prints a table, or one JSON object. Without a name: what there is. */
import Table from 'cli-table3';
import { globSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { machine, type Machine } from './machine.ts';
import type { Bench, Row } from './row.ts';

const NOT_A_BENCH = ['index', 'machine', 'row', 'ended'];

const { values, positionals } = parseArgs({ allowPositionals: true, options: { json: { type: 'boolean', default: false } } });
const [name] = positionals;
const names = await benches();
if (name === undefined) {
  console.log(`usage: npm run -s bench -- NAME [--json]\nbenchmarks: ${names.join(', ')}`);
} else if (!names.includes(name)) {
  console.error(`There is no benchmark ${name}; there are: ${names.join(', ')}`);
  process.exitCode = 2;
} else {
  const { bench } = (await import(`./${name}.ts`)) as { bench: Bench };
  const rows = await bench();
  const where = await machine();
  console.log(values.json ? JSON.stringify({ name, machine: where, rows }) : table(rows, where));
}

/** Files beside this one that export `bench`; helpers of benchmarks lie in folders or export none. */
async function benches(): Promise<string[]> {
  const found = globSync('*.ts', { cwd: import.meta.dirname })
    .map(file => basename(file, '.ts'))
    .filter(file => !NOT_A_BENCH.includes(file));
  const withBench = await Promise.all(
    found.map(async file => 'bench' in ((await import(join(import.meta.dirname, `${file}.ts`))) as object)),
  );
  return found.filter((_, i) => withBench[i]).sort();
}

function table(rows: Row[], where: Machine): string {
  const out = new Table({
    head: ['case', 'unit', 'ours', 'peer', 'tool', 'ratio', 'reach'],
    style: { head: [], border: [] },
    colAligns: ['left', 'left', 'right', 'right', 'left', 'right', 'left'],
  });
  for (const row of rows)
    out.push([row.case, row.unit, figure(row.ours), figure(row.peer), row.tool, row.ratio.toFixed(2), row.reach]);
  const { cpus, model, memory, kernel, node, qemuImg } = where;
  return `${out.toString()}\n${cpus} x ${model}, ${(memory / 2 ** 30).toFixed(1)} GiB, Linux ${kernel}, Node ${node}, qemu-img ${qemuImg}`;
}

/** Three digits that tell something. */
function figure(n: number): string {
  return Math.abs(n) >= 100 ? n.toFixed(0) : n.toPrecision(3);
}
