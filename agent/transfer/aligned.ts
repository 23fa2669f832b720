/** What TypeScript tells only together with the types of browsers. */
declare const WebAssembly: { Memory: new (size: { initial: number; maximum: number }) => { buffer: ArrayBuffer } };

const PAGE = 64 * 2 ** 10; // of WebAssembly

/**
 * A buffer that begins at a page of memory, as direct I/O wants it. Node's own buffers begin anywhere; the memory of WebAssembly is
 * mapped, so it begins at a page.
 */
export function alignedBuffer(size: number): Buffer {
  const pages = Math.ceil(size / PAGE);
  return Buffer.from(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer, 0, size);
}
