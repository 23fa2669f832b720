import type { Socket } from 'node:net';

/** What comes in on a socket, taken in pieces of known length. One `fill` at a time; it fails with `lost` where the socket ends. */
export function incoming(socket: Socket, lost: (cause?: unknown) => Error): { fill(into: Uint8Array): Promise<void> } {
  let early: Buffer[] = [];
  let wanted: { into: Uint8Array; at: number; resolve(): void; reject(error: Error): void } | undefined;
  let over: Error | undefined;

  const take = (piece: Buffer): void => {
    if (!wanted) return void early.push(piece);
    const { into, at } = wanted;
    const n = piece.copy(into, at, 0, into.length - at);
    wanted.at += n;
    if (wanted.at < into.length) return;
    const { resolve } = wanted;
    wanted = undefined;
    if (n < piece.length) early.push(piece.subarray(n));
    resolve();
  };
  const end = (cause?: Error): void => {
    over ??= lost(cause);
    wanted?.reject(over);
    wanted = undefined;
  };
  socket.on('data', (piece: Buffer) => {
    take(piece);
    if (!wanted && early.length > 0) socket.pause();
  });
  socket.on('error', end);
  socket.on('close', () => end());

  return {
    fill: into =>
      new Promise((resolve, reject) => {
        if (into.length === 0) return resolve();
        wanted = { into, at: 0, resolve, reject };
        const pieces = early;
        early = [];
        for (const piece of pieces) take(piece);
        if (wanted && over) return end();
        if (early.length === 0) socket.resume();
      }),
  };
}
