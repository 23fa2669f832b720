import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import express from 'express';
import { openStream } from '../../controller/api/sse.ts';

describe('event streams', () => {
  it('are given up at once where the client left before they began', async () => {
    const app = express();
    const gone = new Promise<void>(resolve =>
      app.get('/', async (_req, res) => {
        await once(res, 'close'); // as while a busy database is read
        openStream(res, resolve);
      }),
    );
    const server = app.listen(0, '127.0.0.1');
    try {
      await once(server, 'listening');
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
      socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n', () => setImmediate(() => socket.destroy()));
      await gone;
    } finally {
      server.close();
    }
    assert.equal(server.listening, false);
  });
});
