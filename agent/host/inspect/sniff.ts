import type { SourceFormat } from '../../../shared/model.ts';

/** How many bytes from the file's start `sniffFormats` and `sniffRaw` look at: up to the ISO 9660 volume descriptor. */
export const SNIFF_LENGTH = 0x8006;

/** A format that qemu would find at a file's start. `source` is set for those that can be imported. */
export interface Magic {
  name: string;
  source: SourceFormat | null;
  /** An encrypted container, for a better error. */
  encrypted?: boolean;
}

const has = (head: Buffer, at: number, bytes: string): boolean => head.toString('latin1', at, at + bytes.length) === bytes;

const AT_START: readonly (readonly [string, Magic])[] = [
  ['QFI\xfb\0\0\0\x01', { name: 'qcow (version 1)', source: null }],
  ['KDMV', { name: 'vmdk', source: 'vmdk' }],
  ['COWD', { name: 'vmdk of old ESX (COWD)', source: null }],
  ['vhdxfile', { name: 'vhdx', source: 'vhdx' }],
  ['conectix', { name: 'vhd', source: null }],
  ['LUKS\xba\xbe', { name: 'luks', source: null, encrypted: true }],
  ['QED\0', { name: 'qed', source: null }],
  ['WithoutFreeSpace', { name: 'parallels', source: null }],
  ['WithouFreSpacExt', { name: 'parallels', source: null }],
  ['Bochs Virtual HD Image', { name: 'bochs', source: null }],
  ['#!/bin/sh\n#V2.0 Format\nmodprobe cloop', { name: 'cloop', source: null }],
];

/** The name of a VMDK that is only text naming other files. */
export const VMDK_TEXT = 'vmdk descriptor (text)';

/**
 * Every disk format whose magic the file carries, as the probes of qemu 7.2's block drivers would find it. More than one means that
 * two readers may take the same file for two different disks.
 */
export function sniffFormats(head: Buffer): Magic[] {
  const found = AT_START.filter(([bytes]) => has(head, 0, bytes)).map(([, magic]) => magic);
  if (has(head, 0, 'QFI\xfb') && found.length === 0) found.push({ name: 'qcow2', source: 'qcow2' });
  if (has(head, 0x40, '\x7f\x10\xda\xbe')) found.push({ name: 'vdi', source: 'vdi' });
  if (isVmdkText(head)) found.push({ name: VMDK_TEXT, source: 'vmdk' });
  return found;
}

/** qemu takes any text for a VMDK descriptor whose first line that is neither comment nor blank says `version=1`, 2 or 3. */
function isVmdkText(head: Buffer): boolean {
  return /^(?:#[^\n]*\n| *\r?\n)*version=[123]\r?\n/.test(head.toString('latin1', 0, 4096));
}

/** A mark by which a raw disk is known, and the byte at which it lies. */
export interface RawMark {
  name: string;
  at: number;
}

/** The marks of partition tables and file systems that the file carries. Two-byte ones are only believed with what must be near them. */
export function sniffRaw(head: Buffer): RawMark[] {
  const marks: RawMark[] = [];
  if (has(head, 510, '\x55\xaa') && (hasPartitions(head) || isBootSector(head))) marks.push({ name: 'mbr', at: 510 });
  for (const at of [512, 4096]) if (has(head, at, 'EFI PART')) marks.push({ name: 'gpt', at });
  if (has(head, 0x8001, 'CD001')) marks.push({ name: 'iso9660', at: 0x8001 });
  if (has(head, 0x438, '\x53\xef')) marks.push({ name: 'ext', at: 0x438 });
  if (has(head, 0, 'XFSB')) marks.push({ name: 'xfs', at: 0 });
  return marks;
}

/** Four entries of 16 bytes from 446, each starting with 0x80 (active) or 0. */
function hasPartitions(head: Buffer): boolean {
  return [446, 462, 478, 494].every(at => ((head[at] ?? 1) & 0x7f) === 0);
}

/** The jump with which FAT and NTFS start. */
function isBootSector(head: Buffer): boolean {
  return (head[0] === 0xeb && head[2] === 0x90) || head[0] === 0xe9;
}
