/** A partial object on the server, and the journal beside it. */
import { CisternError } from '../../../shared/errors.ts';
import { headLine, JOURNAL_LIMIT, type JournalHead, parseJournal, partLine } from '../../transfer/part-journal.ts';
import type { PartDigest } from '../../transfer/parts.ts';
import type { Control } from './control.ts';
import { appendFile, makeFile, readFile, removeFile, statFile, syncFile, writeFile } from './files.ts';

interface Partial {
  kept: ReadonlyMap<number, PartDigest>;
  arrived(part: number, digest: PartDigest): void;
  /** Brings what has arrived to the server's disk, and only then notes it: what the journal tells is not read again. */
  flush(): Promise<void>;
  /** Removes the journal. */
  remove(): Promise<void>;
}

/** Goes on with a partial object of the same size and cut, or makes it anew. */
export async function beginPartial(link: Control, partial: string, head: JournalHead): Promise<Partial> {
  const noted = `${partial}.parts`;
  let kept = await takeUp(link, partial, noted, head);
  if (kept.size === 0) {
    kept = new Map();
    await removeFile(link, noted);
    await removeFile(link, partial);
    await makeFile(link, partial, head.size);
    await writeFile(link, noted, Buffer.from(headLine(head)));
  }
  let pending: string[] = [];
  return {
    kept,
    arrived: (part, digest) => void pending.push(partLine(part, digest)),
    flush: async () => {
      const lines = pending;
      pending = [];
      try {
        await syncFile(link, partial);
        if (lines.length > 0) await appendFile(link, noted, Buffer.from(lines.join('')));
      } catch (error) {
        pending = [...lines, ...pending];
        throw error;
      }
    },
    remove: () => removeFile(link, noted),
  };
}

async function takeUp(link: Control, partial: string, noted: string, head: JournalHead): Promise<Map<number, PartDigest>> {
  try {
    const { size } = await statFile(link, partial);
    if (size !== head.size) return new Map();
    return parseJournal((await readFile(link, noted, JOURNAL_LIMIT)).toString('latin1'), head);
  } catch (error) {
    if (error instanceof CisternError && ['OBJECT_MISSING', 'MANIFEST_INVALID'].includes(error.code)) return new Map();
    throw error;
  }
}
