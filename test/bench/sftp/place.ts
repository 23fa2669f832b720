import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSshd, type TestSshd } from '../../servers/sshd.ts';

/** The server that all meet, and a folder for what they move. */
export interface Place extends AsyncDisposable {
  sshd: TestSshd;
  folder: string;
}

export async function startPlace(): Promise<Place> {
  const sshd = await startSshd();
  const folder = await mkdtemp(join(tmpdir(), 'cistern-bench-'));
  return {
    sshd,
    folder,
    [Symbol.asyncDispose]: async () => {
      await sshd.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
