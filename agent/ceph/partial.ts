/** An object that arrives: an RBD image of a name that no object has, and a journal beside it. */
import { headLine, JOURNAL_LIMIT, type JournalHead, parseJournal, partLine } from '../transfer/part-journal.ts';
import type { PartDigest } from '../transfer/parts.ts';
import type { Cluster } from './cluster.ts';
import { isCode } from './errors.ts';
import { makeImage, removeImage, sizeOf } from './images.ts';
import { appendObject, readObject, removeObjects, writeObject } from './objects.ts';

interface Partial {
  kept: ReadonlyMap<number, PartDigest>;
  arrived(part: number, digest: PartDigest): void;
  /** Notes what has arrived. It lies on the storage's disks: qemu-nbd caches nothing (server.ts), and OSDs answer once it does. */
  flush(): Promise<void>;
  /** Removes the journal. */
  forget(): Promise<void>;
}

/** Goes on with a partial image of the same size and cut, or makes it anew. */
export async function beginPartial(cluster: Cluster, partial: string, head: JournalHead): Promise<Partial> {
  const noted = `${partial}.parts`;
  const kept = await takeUp(cluster, partial, noted, head);
  if (kept.size === 0) {
    await removeObjects(cluster, [noted]);
    await removeImage(cluster, partial);
    await makeImage(cluster, partial, head.size);
  }
  let begun = kept.size > 0;
  let pending: string[] = [];
  return {
    kept,
    arrived: (part, digest) => void pending.push(partLine(part, digest)),
    flush: async () => {
      const lines = pending;
      pending = [];
      try {
        if (!begun) await writeObject(cluster, noted, Buffer.from(headLine(head) + lines.join('')));
        else if (lines.length > 0) await appendObject(cluster, noted, Buffer.from(lines.join('')));
        begun = true;
      } catch (error) {
        pending = [...lines, ...pending];
        throw error;
      }
    },
    forget: () => removeObjects(cluster, [noted]),
  };
}

async function takeUp(cluster: Cluster, partial: string, noted: string, head: JournalHead): Promise<Map<number, PartDigest>> {
  try {
    const text = (await readObject(cluster, noted, JOURNAL_LIMIT)).toString('latin1');
    return (await sizeOf(cluster, partial)) === head.size ? parseJournal(text, head) : new Map();
  } catch (error) {
    if (isCode(error, 'OBJECT_MISSING') || isCode(error, 'MANIFEST_INVALID')) return new Map();
    throw error;
  }
}
