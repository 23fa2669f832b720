/** A driver as somebody else would write it: a folder, as simple as can be. It knows of cistern no more than the types. */
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { BackupStore, PlugIn, PlugInTools } from '../../agent/backup/plug-ins.ts';

type CisternFault = InstanceType<PlugInTools['CisternError']>;

const shelf: PlugIn = tools => {
  const { z, CisternError } = tools;
  const config = z.strictObject({ path: z.string().describe('existing folder') });
  return {
    type: 'shelf',
    title: 'A shelf of the tests',
    shared: false,
    config,
    connect: async store => {
      const { path } = config.parse(store.config);
      if (!(await stat(path).catch(() => undefined))?.isDirectory())
        throw new CisternError('STORE_CONFIG', `opening the shelf ${path}: it is not a folder`);
      return openShelf(path, tools);
    },
  };
};
export default shelf;

function openShelf(root: string, { CisternError, segmentsOf, fileSource, fileSink }: PlugInTools): BackupStore {
  const codes = { full: 'STORE_FULL', missing: 'OBJECT_MISSING', denied: 'STORE_PERMISSION' } as const;
  const at = (path: string): string => join(root, ...segmentsOf(path));
  const missing = (path: string): CisternFault =>
    new CisternError('OBJECT_MISSING', `reading ${path} on the shelf: it is not there`);
  const made = async (path: string): Promise<{ partial: string; final: string }> => {
    const final = at(path);
    await mkdir(dirname(final), { recursive: true });
    return { final, partial: `${final}.partial-` };
  };
  const write = async (path: string, body: Buffer): Promise<void> => {
    const { partial, final } = await made(path);
    await writeFile(partial, body);
    await rename(partial, final);
  };
  return {
    source: path => fileSource(at(path), { name: `shelf:${path}`, codes }),
    sink: async (path, size) => fileSink({ ...(await made(path)), size, name: `shelf:${path}`, codes }),
    read: async (path, limit) => {
      const body = await readFile(at(path)).catch(() => Promise.reject(missing(path)));
      if (body.length <= limit) return body;
      throw new CisternError('MANIFEST_INVALID', `reading ${path} on the shelf: more than ${limit} bytes`);
    },
    write,
    list: folder => readdir(at(folder)).catch(() => []),
    remove: folder => rm(at(folder), { recursive: true, force: true }),
    check: async () => {
      await write('probe', Buffer.from('probe'));
      await rm(at('probe'));
    },
    close: () => Promise.resolve(),
  };
}
