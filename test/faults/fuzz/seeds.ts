import type { SourceFormat } from '../../../shared/model.ts';
import { honestBytes, VHDX_METADATA, type Base } from '../../unit/corpus/image.ts';

/** A part of an image that its judge reads. */
export interface Region {
  name: string;
  from: number;
  to: number;
}

/** An honest image that mutants are made of. */
export interface Seed {
  base: Base;
  format: SourceFormat;
  bytes: Buffer;
  bigEndian: boolean;
  regions: Region[];
  /** Bytes whose meaning and width are known: place and length. */
  fields: readonly (readonly [at: number, length: number])[];
  /** How many mutants of a hundred are made of it. */
  share: number;
}

const region = (name: string, from: number, length: number): Region => ({ name, from, to: from + length });
const fields = (from: number, ...lengths: number[]): [number, number][] => {
  let at = from;
  return lengths.map(length => [(at += length) - length, length]);
};

const QCOW2_FIELDS = fields(4, 4, 8, 4, 4, 8, 4, 4, 8, 8, 4, 4, 8, 8, 8, 8, 4, 4, 1);
const VMDK_FIELDS = [...fields(4, 4, 4, 8, 8, 8, 8, 4, 8, 8, 8), [77, 2] as const];
const VHDX_FIELDS = [
  ...[0x1_0000, 0x2_0000].flatMap(at => [...fields(at + 4, 4, 8), ...fields(at + 48, 8, 8, 2, 2, 4, 8)]),
  ...fields(0x3_0004, 4, 4),
  ...fields(0x3_0010, 8, 8, 8, 4, 4, 8, 8, 8, 4, 4),
  [VHDX_METADATA + 10, 2] as const,
  ...Array.from({ length: 5 }, (_, i) => fields(VHDX_METADATA + 32 + i * 32, 8, 8, 4, 4, 4)).flat(),
  ...fields(VHDX_METADATA + 0x1_0000, 4, 4, 8, 8, 8, 4, 4),
];
const VDI_FIELDS = [
  ...fields(0x40, 4, 4, 4, 4, 4),
  ...fields(0x154, 4, 4),
  ...fields(0x168, 4, 4, 8, 4, 4, 4, 4),
  [0x1a8, 8] as const,
  [0x1b8, 8] as const,
];

/** The honest images, made by qemu-img in `dir`: small ones, since what is judged 200,000 times must be judged fast. */
export async function makeSeeds(dir: string): Promise<Seed[]> {
  const qcow2 = async (base: Base, share: number): Promise<Seed> => {
    const bytes = await honestBytes(base, dir, true);
    const [l1, refcounts] = [Number(bytes.readBigUInt64BE(40)), Number(bytes.readBigUInt64BE(48))];
    const regions = [
      region('header', 0, 112),
      region('extensions', 72, 600),
      region('L1', l1, 64),
      region('L2', Number(bytes.readBigUInt64BE(l1) & 0xff_ffff_ffff_fe00n), 64),
      region('refcount table', refcounts, 32),
      region('refcount block', Number(bytes.readBigUInt64BE(refcounts)), 64),
    ];
    return { base, format: 'qcow2', bytes, bigEndian: true, regions, fields: QCOW2_FIELDS, share };
  };
  const vmdk = async (base: Base, share: number): Promise<Seed> => {
    const bytes = await honestBytes(base, dir, true);
    const directory = bytes.readUInt32LE(56) * 512;
    const regions = [
      region('header', 0, 80),
      region('descriptor', 512, 400),
      region('directory', directory, 64),
      region('table', bytes.readUInt32LE(directory) * 512, 64),
    ];
    return { base, format: 'vmdk', bytes, bigEndian: false, regions, fields: VMDK_FIELDS, share };
  };
  const vhdx = await honestBytes('vhdx', dir, true);
  const vdi = await honestBytes('vdi', dir, true);
  return [
    await qcow2('qcow2', 15),
    await qcow2('v2', 10),
    await qcow2('x', 20),
    await vmdk('vmdk', 15),
    await vmdk('stream', 10),
    {
      base: 'vhdx',
      format: 'vhdx',
      bytes: vhdx,
      bigEndian: false,
      regions: [
        region('header 1', 0x1_0000, 80),
        region('header 2', 0x2_0000, 80),
        region('region table', 0x3_0000, 80),
        region('block table', 0x20_0000, 64),
        region('metadata table', VHDX_METADATA, 192),
        region('metadata', VHDX_METADATA + 0x1_0000, 40),
      ],
      fields: VHDX_FIELDS,
      share: 20,
    },
    {
      base: 'vdi',
      format: 'vdi',
      bytes: vdi,
      bigEndian: false,
      regions: [region('header', 0x40, 0x188), region('block map', 0x200, 64)],
      fields: VDI_FIELDS,
      share: 10,
    },
  ];
}
