import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseEvents, type ServerSentEvent } from '../../controller/cli/sse.ts';

/** What comes out of `text` when it arrives in pieces that end at `cuts`. */
async function parse(text: string, cuts: number[] = []): Promise<ServerSentEvent[]> {
  const bytes = Buffer.from(text);
  const ends = [...new Set(cuts.map(cut => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  const pieces = [...ends, bytes.length].map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end));
  const events: ServerSentEvent[] = [];
  for await (const event of parseEvents(
    (async function* () {
      await Promise.resolve();
      yield* pieces;
    })(),
  ))
    events.push(event);
  return events;
}

describe('cistern: server-sent events', () => {
  const stream =
    ': hello\n\nevent: operation\nid: 1\ndata: {"name":\ndata: "größe"}\n\ndata:plain\n\nretry: 5\n\nid: 9\r\nevent: x\r\ndata:  two\r\n\r\n';
  const expected = [
    { id: '1', event: 'operation', data: '{"name":\n"größe"}' },
    { id: '1', event: 'message', data: 'plain' },
    { id: '9', event: 'x', data: ' two' },
  ];

  it('are read with their id, kind and lines; comments are passed over', async () => {
    assert.deepEqual(await parse(stream), expected);
  });

  it('are the same however the bytes are cut', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(200), { maxLength: 30 }), async cuts =>
        assert.deepEqual(await parse(stream, cuts), expected),
      ),
    );
  });

  it('that are cut off at the end are not taken', async () => {
    assert.deepEqual(await parse('data: whole\n\ndata: ha'), [{ id: undefined, event: 'message', data: 'whole' }]);
  });

  it('that never end are refused', async () => {
    await assert.rejects(parse(`data: ${'x'.repeat(17 * 2 ** 20)}`), /over \d+ characters/);
  });
});
