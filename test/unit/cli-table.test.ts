import assert from 'node:assert/strict';
import { oneLine, plainText } from '../../controller/cli/io.ts';
import { type Column, formatPairs, formatTable } from '../../controller/cli/table.ts';

interface Row {
  name: string;
  size: string;
  reason: string;
  id: string;
}
const columns: Column<Row>[] = [
  { title: 'NAME', value: r => r.name },
  { title: 'SIZE', value: r => r.size, align: 'right' },
  { title: 'REASON', value: r => r.reason, yields: 1 },
  { title: 'ID', value: r => r.id, yields: 2, whole: true },
];
const rows: Row[] = [
  {
    name: 'vault',
    size: '1.0 GiB',
    reason: 'the server refused the key that was offered',
    id: '0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b',
  },
  { name: 'shelf-of-images', size: '512 B', reason: '', id: '0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c' },
];
const lines = (width: number): string[] => formatTable(columns, rows, { width, bold: false }).split('\n');

describe('cistern: tables', () => {
  it('stand without lines, numbers to the right, a hyphen for nothing', () => {
    assert.deepEqual(lines(Infinity), [
      'NAME                SIZE  REASON                                       ID',
      'vault            1.0 GiB  the server refused the key that was offered  0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b',
      'shelf-of-images    512 B  -                                            0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c',
    ]);
  });

  it('drop ids whole where the terminal is narrow, then cut what matters least with an ellipsis, then drop it', () => {
    assert.deepEqual(lines(80)[1], 'vault            1.0 GiB  the server refused the key that was offered');
    assert.deepEqual(lines(50)[1], 'vault            1.0 GiB  the server refused the …');
    assert.deepEqual(lines(30)[1], 'vault            1.0 GiB');
  });

  it('never exceed the terminal as long as what may not give way fits', () => {
    for (let width = 24; width < 120; width += 1)
      for (const line of lines(width)) assert.ok(line.length <= width, `${width}: ${line}`);
  });

  it('print bold titles only where colour is wanted', () => {
    assert.ok(formatTable(columns, rows, { width: 80, bold: true }).includes('\u001b[1mNAME'));
    assert.ok(!formatTable(columns, rows, { width: 80, bold: false }).includes('\u001b'));
  });

  it('let no text steer the terminal', () => {
    assert.equal(oneLine('a\u001b[2Jb\nc\u202ed'), 'a [2Jb c d');
    assert.equal(plainText('a\r\n\u0007b'), 'a\n b');
    assert.ok(
      !formatTable(columns, [{ ...rows[0]!, name: 'x\u001b]0;title\u0007' }], { width: 200, bold: false }).includes('\u001b'),
    );
  });

  it('align labels and leave out what is not known', () => {
    assert.equal(
      formatPairs([
        ['name', 'x'],
        ['reason', undefined],
        ['virtual size', '1 B'],
      ]),
      'name          x\nvirtual size  1 B',
    );
  });
});
