/** Uploads a part of an image and then stands still, to be killed: what an agent that dies in the middle does. Its order comes by IPC. */
import type { BackupStore } from '../../agent/backup/driver.ts';
import { publishImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { newId } from '../../shared/id.ts';
import { gatedSource } from './gate-end.ts';

export interface UploadOrder {
  type: string;
  config: Record<string, unknown>;
  id: string;
  size: number;
  /** Bytes that pass before it stands still. */
  open: number;
  partSize: number;
}

process.once('message', message => void upload(message as UploadOrder));

async function upload({ type, config, id, size, open, partSize }: UploadOrder): Promise<void> {
  const signal = new AbortController().signal;
  const store = await openBackupStore({ id: newId(), type, config }, signal);
  const flushed = Promise.withResolvers<void>();
  const watched: BackupStore = {
    ...store,
    // a storage that notes parts only once they are on its disk has noted none before it was asked to bring them there
    sink: async (...object) => {
      const sink = await store.sink(...object);
      const { flush } = sink;
      if (!flush) flushed.resolve();
      return flush ? { ...sink, flush: () => flush().then(flushed.resolve) } : sink;
    },
  };
  const source = gatedSource(size, open);
  const image = { id, format: 'raw' as const, virtualSize: size };
  const uploading = publishImage(watched, image, source, { streams: 1, stallSeconds: 60, signal, partSize });
  await Promise.race([Promise.all([source.gate.reached(), flushed.promise]), uploading]);
  process.send?.('stands still');
}
