/** Runs in a process of its own: publishes and fetches as a task of the agent does. */
import type { BackupStore } from '../../../agent/backup/driver.ts';
import { fetchImage, publishImage } from '../../../agent/backup/layout.ts';
import { openBackupStore } from '../../../agent/backup/registry.ts';
import { fileSink, fileSource } from '../../../agent/transfer/file-end.ts';
import { newId } from '../../../shared/id.ts';

export type Job = { what: 'download' | 'upload'; id: string; file: string };
export interface Store {
  type: string;
  config: Record<string, unknown>;
}
export interface Reply {
  error?: string;
}

const options = { streams: 2, stallSeconds: 60, signal: new AbortController().signal };
let store: BackupStore | undefined;

async function answer(message: Job | { what: 'open'; store: Store }): Promise<Reply> {
  if (message.what === 'open') {
    store = await openBackupStore({ id: newId(), ...message.store }, options.signal);
    return {};
  }
  const { id, file } = message;
  if (!store) throw new Error('not open');
  if (message.what === 'upload') {
    const source = await fileSource(file);
    await publishImage(store, { id, format: 'raw', virtualSize: source.size }, source, options);
  } else {
    await fetchImage(store, id, manifest => fileSink({ partial: `${file}.partial`, final: file, size: manifest.size }), options);
  }
  return {};
}

process.on('message', (message: Job) => {
  void answer(message)
    .catch((error: unknown): Reply => ({ error: String(error) }))
    .then(reply => process.send?.(reply));
});

process.once('disconnect', () => process.exit()); // the benchmark was ended
