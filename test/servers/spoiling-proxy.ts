import { once } from 'node:events';
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';

export interface SpoilingProxy extends AsyncDisposable {
  port: number;
  /** Cuts every n-th connection after `cutAfter` bytes from the server. 0: none. */
  cutEvery: number;
  cutAfter: number;
  /** So many connections at most. */
  cutTimes: number;
  /** Flips a bit, once, at this byte of what a connection carries to or from the server. */
  flip?: { way: 'up' | 'down'; at: number } | undefined;
  /** Says this, once each, instead of asking the server for a request whose head fits. */
  answers: { head: RegExp; says: string; times: number }[];
  /** What befell connections so far. */
  spoilt: number;
}

/** A relay to a port on loopback that does what bad networks and busy servers do; with `tls` it speaks TLS to its clients. */
export async function startSpoilingProxy(to: number, tls?: { key: string; cert: string }): Promise<SpoilingProxy> {
  const sockets = new Set<Socket>();
  let connections = 0;
  const serve = (client: Socket): void => {
    const server = createConnection({ port: to, host: '127.0.0.1' });
    const number = ++connections;
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    let up = 0;
    let down = 0;
    client.on('data', chunk => {
      const head = chunk.toString('latin1');
      const answer = proxy.answers.find(one => one.times > 0 && one.head.test(head));
      if (answer !== undefined) {
        answer.times--;
        proxy.spoilt++;
        client.end(answer.says);
        return;
      }
      up = pass(chunk, 'up', up, server);
    });
    server.on('data', chunk => {
      down = pass(chunk, 'down', down, client);
      if (proxy.cutEvery === 0 || proxy.cutTimes === 0 || number % proxy.cutEvery !== 0 || down < proxy.cutAfter) return;
      proxy.cutTimes--;
      proxy.spoilt++;
      client.destroy();
    });
  };
  const pass = (chunk: Buffer, way: 'up' | 'down', before: number, to: Socket): number => {
    const { flip } = proxy;
    if (flip?.way === way && before <= flip.at && flip.at < before + chunk.length) {
      chunk[flip.at - before]! ^= 1;
      proxy.flip = undefined;
      proxy.spoilt++;
    }
    to.write(chunk);
    return before + chunk.length;
  };
  const server = tls ? createTlsServer(tls, serve) : createServer(serve);
  server.on('tlsClientError', () => undefined); // who does not trust the certificate hangs up
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const proxy: SpoilingProxy = {
    port: (server.address() as AddressInfo).port,
    cutEvery: 0,
    cutAfter: 0,
    cutTimes: Infinity,
    answers: [],
    spoilt: 0,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
  return proxy;
}
