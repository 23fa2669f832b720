import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';

export interface RawServer extends AsyncDisposable {
  /** Without a slash at the end: `http://127.0.0.1:PORT`. */
  url: string;
  /** Heads of the requests so far. */
  heads: string[];
}

/**
 * A server that says whatever it likes: `speak` gets the socket once the head of a request has come, and how many came before it.
 * What it never says it never says; sockets end with the server.
 */
export async function startRawServer(speak: (socket: Socket, before: number) => void, host = '127.0.0.1'): Promise<RawServer> {
  const sockets = new Set<Socket>();
  const heads: string[] = [];
  const server = createServer(socket => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy()).on('close', () => sockets.delete(socket));
    let head = '';
    socket.on('data', chunk => {
      if (head.includes('\r\n\r\n')) return;
      head += chunk.toString('latin1');
      if (head.includes('\r\n\r\n')) speak(socket, heads.push(head) - 1);
    });
  });
  await once(server.listen(0, host), 'listening');
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`,
    heads,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await once(server.close(), 'close');
    },
  };
}

/** Says the same again and again until the other side has enough. */
export function repeat(socket: Socket, text: string, everyMs: number): void {
  const timer = setInterval(() => socket.write(text), everyMs);
  socket.on('close', () => clearInterval(timer));
}
