import assert from 'node:assert/strict';

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*\})? (\S+)( \d+)?$/;
/** Suffixes that samples of a family may have, by its type. */
const SUFFIXES: Record<string, string[]> = {
  counter: [''],
  gauge: [''],
  histogram: ['_bucket', '_sum', '_count'],
  summary: ['', '_sum', '_count'],
};
const UNITS = /_(milliseconds|ms|minutes|kilobytes|kb|megabytes|mb|percent)(_|$)/;

/**
 * Fails unless `text` follows the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/) and, for
 * our own names, its naming rules: HELP and TYPE before the samples of each family, no family or series twice, counters end in
 * _total, base units. Returns the families of ours by name.
 */
export function checkMetrics(text: string, prefix: string): Map<string, string> {
  assert.ok(text.endsWith('\n'), 'the last line has no end');
  const types = new Map<string, string>();
  const helped = new Set<string>();
  const series = new Set<string>();
  let family = '';
  for (const line of text.split('\n').filter(Boolean)) {
    const [, what, name, rest] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (what === 'HELP') {
      assert.ok(!helped.has(name!), `${name} is explained twice`);
      helped.add(name!);
    } else if (what === 'TYPE') {
      assert.ok(!types.has(name!), `${name} comes twice`);
      assert.ok(helped.has(name!), `${name} has no HELP`);
      assert.ok(rest! in SUFFIXES, `${name} is of the type ${rest}`);
      types.set((family = name!), rest!);
    } else if (!line.startsWith('#')) {
      const [, sample, labels = '', value] = SAMPLE.exec(line) ?? assert.fail(`not a sample: ${line}`);
      const fits = SUFFIXES[types.get(family)!]!.some(suffix => sample === family + suffix);
      assert.ok(fits, `${sample} stands in the family ${family}`);
      assert.ok(['+Inf', '-Inf', 'NaN'].includes(value!) || Number.isFinite(Number(value)), line);
      assert.ok(!series.has(sample + labels), `${sample}${labels} comes twice`);
      series.add(sample! + labels);
    }
  }
  const ours = [...types].filter(([name]) => name.startsWith(prefix));
  for (const [name, type] of ours) {
    if (type === 'counter') assert.match(name, /_total$/);
    assert.doesNotMatch(name, UNITS);
  }
  return new Map(ours);
}
