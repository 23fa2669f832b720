/** A real OpenStack Keystone of our own: SQLite, its own test server, one user with one project. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { freePorts, startDaemon } from './daemon.ts';

export interface TestKeystone {
  /** Ends in /v3. */
  url: string;
  user: string;
  password: string;
  project: string;
  region: string;
  kill(): Promise<void>;
}

/** Starts it in `folder`, with `storage` as the object storage of its catalogue; about twenty seconds. */
export async function startKeystone(folder: string, storage: string): Promise<TestKeystone> {
  const [port] = (await freePorts(1)) as [number];
  const url = `http://127.0.0.1:${port}/v3`;
  const [user, password, project, region] = ['keeper', 'a long password', 'images', 'RegionOne'];
  const config = join(folder, 'keystone.conf');
  for (const name of ['fernet', 'credential']) await mkdir(join(folder, name), { recursive: true, mode: 0o700 });
  await writeFile(config, configText(folder));
  const manage = (...args: string[]): Promise<unknown> => execa('keystone-manage', ['--config-file', config, ...args]);
  await manage('db_sync');
  await manage('fernet_setup', '--keystone-user', 'root', '--keystone-group', 'root');
  const account = ['--bootstrap-username', user, '--bootstrap-password', password, '--bootstrap-project-name', project];
  await manage('bootstrap', ...account, '--bootstrap-region-id', region, '--bootstrap-public-url', url);
  const argv = ['/usr/bin/keystone-wsgi-public', '-p', String(port), '-b', '127.0.0.1'] as const;
  const daemon = await startDaemon(folder, port, [...argv], { OS_KEYSTONE_CONFIG_FILES: config });
  try {
    await addStorage(url, { user, password, project, region }, storage);
  } catch (error) {
    await daemon.kill();
    throw error;
  }
  return { url, user, password, project, region, kill: daemon.kill };
}

const configText = (folder: string): string => `
[DEFAULT]
log_file = ${folder}/keystone.log
[database]
connection = sqlite:///${folder}/keystone.db
[fernet_tokens]
key_repository = ${folder}/fernet
[credential]
key_repository = ${folder}/credential
[cache]
enabled = false
`;

async function addStorage(
  url: string,
  { user, password, project, region }: Pick<TestKeystone, 'user' | 'password' | 'project' | 'region'>,
  storage: string,
): Promise<void> {
  const domain = { name: 'Default' };
  const identity = { methods: ['password'], password: { user: { name: user, domain, password } } };
  const post = async (path: string, body: unknown, token = ''): Promise<Response> => {
    const headers = { 'content-type': 'application/json', 'x-auth-token': token };
    const answer = await fetch(url + path, {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(30_000),
    });
    if (!answer.ok) throw new Error(`Keystone answered ${answer.status} to ${path}: ${await answer.text()}`);
    return answer;
  };
  const entered = await post('/auth/tokens', { auth: { identity, scope: { project: { name: project, domain } } } });
  const token = entered.headers.get('x-subject-token')!;
  const made = await post('/services', { service: { type: 'object-store', name: 'swift' } }, token);
  const { service } = (await made.json()) as { service: { id: string } };
  const endpoint = { service_id: service.id, region_id: region, interface: 'public', url: `${storage}/v1/AUTH_%(project_id)s` };
  await post('/endpoints', { endpoint }, token);
}
