import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  formatAge,
  formatBytes,
  formatDuration,
  formatSpan,
  parseCount,
  parseEnd,
  parseRatio,
  parseSize,
} from '../../controller/cli/units.ts';

describe('cistern: sizes and times', () => {
  it('reads sizes with binary units', () => {
    const sizes: [string, number][] = [
      ['4096', 4096],
      ['0', 0],
      ['512B', 512],
      ['512M', 512 * 2 ** 20],
      ['10G', 10 * 2 ** 30],
      ['10g', 10 * 2 ** 30],
      ['10 GiB', 10 * 2 ** 30],
      ['1.5TiB', 1.5 * 2 ** 40],
      ['2k', 2048],
      ['1P', 2 ** 50],
    ];
    for (const [text, bytes] of sizes) assert.equal(parseSize(text), bytes, text);
  });

  it('refuses what is not a size, and says what to write instead of decimal units', () => {
    for (const text of ['', 'x', '-1', '1e3', '10X', 'G', '1.2.3G', '10 G B', '99999P', '0x10', '10,5G'])
      assert.throws(() => parseSize(text), /size|bytes/, text);
    assert.throws(() => parseSize('10GB'), /write 10G or 10GiB/);
  });

  it('reads when something ends, as a time span or a time', () => {
    const ahead = (Date.parse(parseEnd('90d')) - Date.now()) / 86_400_000;
    assert.ok(ahead > 89.9 && ahead < 90.1, String(ahead));
    assert.equal(parseEnd('2099-01-31T12:00:00+02:00'), '2099-01-31T10:00:00.000Z');
    for (const text of ['', 'soon', '90', '1.5d', '-1d', '2099-01-31', '2099-13-01T00:00:00Z', '12h30m'])
      assert.throws(() => parseEnd(text), /time span such as 12h/, text);
  });

  it('prints any size so that reading it back is within half of its last digit', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 52 }), bytes => {
        const text = formatBytes(bytes);
        const [number, unit] = text.split(' ') as [string, string];
        assert.ok(Number(number) < 1024 || unit === 'PiB', text);
        const step = unit === 'B' ? 1 : 0.1 * parseSize(`1${unit}`);
        assert.ok(Math.abs(parseSize(text.replace(' ', '')) - bytes) <= step / 2 + 1, `${bytes}: ${text}`);
      }),
    );
    assert.equal(formatBytes(null), '-');
    assert.equal(formatBytes(10 * 2 ** 30), '10.0 GiB');
    assert.equal(formatBytes(2 ** 20 - 1), '1.0 MiB');
  });

  it('prints ages by their largest unit and spans by their two largest', () => {
    const now = Date.parse('2030-01-10T00:00:00Z');
    const ages: [string, string][] = [
      ['2030-01-09T23:59:30Z', '30s'],
      ['2030-01-09T23:56:10Z', '3m'],
      ['2030-01-09T19:00:00Z', '5h'],
      ['2030-01-08T00:00:00Z', '2d'],
      ['2030-01-10T00:00:05Z', '0s'],
    ];
    for (const [time, age] of ages) assert.equal(formatAge(time, now), age);
    assert.equal(formatAge(null), '-');
    assert.deepEqual([0, 45, 60, 200, 7500, 90000, 3 * 86400 + 5].map(formatSpan), [
      '0s',
      '45s',
      '1m',
      '3m20s',
      '2h5m',
      '1d1h',
      '3d',
    ]);
    assert.deepEqual([0.44, 9.96, 75].map(formatDuration), ['0.4s', '10.0s', '1m15s']);
  });

  it('reads counts and ratios, and nothing else', () => {
    assert.equal(parseCount(1, 1000)('20'), 20);
    for (const text of ['0', '1001', '1.5', '-1', 'x', ''])
      assert.throws(() => parseCount(1, 1000)(text), /from 1 to 1000/, text);
    assert.equal(parseRatio('1.5'), 1.5);
    for (const text of ['0', '-1', 'x', '1e3']) assert.throws(() => parseRatio(text), /above 0/, text);
  });
});
