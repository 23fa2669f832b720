/** For each byte, and for each byte with one to seven zeros behind it: eight bytes are taken at a time ("slicing by 8"). */
const TABLES: Int32Array[] = [
  new Int32Array(256).map((_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
    return crc;
  }),
];
for (let i = 1; i < 8; i++) TABLES.push(TABLES[i - 1]!.map(crc => TABLES[0]![crc & 0xff]! ^ (crc >>> 8)));
const [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES as [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
];

/** CRC-32C (Castagnoli, RFC 3720 appendix B.4), with the four bytes at `hole` taken as zeros: there the checksum itself stands. */
export function crc32c(data: Buffer, hole: number): number {
  let crc = more(-1, data.subarray(0, hole));
  crc = more(crc, Buffer.alloc(4));
  return ~more(crc, data.subarray(hole + 4)) >>> 0;
}

function more(start: number, data: Buffer): number {
  let crc = start;
  let at = 0;
  for (; at + 8 <= data.length; at += 8) {
    const low = crc ^ data.readInt32LE(at);
    const high = data.readInt32LE(at + 4);
    crc =
      T7[low & 0xff]! ^
      T6[(low >>> 8) & 0xff]! ^
      T5[(low >>> 16) & 0xff]! ^
      T4[low >>> 24]! ^
      T3[high & 0xff]! ^
      T2[(high >>> 8) & 0xff]! ^
      T1[(high >>> 16) & 0xff]! ^
      T0[high >>> 24]!;
  }
  for (; at < data.length; at++) crc = T0[(crc ^ data[at]!) & 0xff]! ^ (crc >>> 8);
  return crc;
}
