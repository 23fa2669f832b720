import { hostname, networkInterfaces } from 'node:os';
import type { Served } from '../shared/service.ts';
import type { ClientTls } from '../shared/tls/client.ts';
import type { ServerTls } from '../shared/tls/door.ts';
import type { Authority } from './authority.ts';
import type { ControllerConfig } from './config.ts';

const DAY_MS = 86_400_000;
/** No timer of Node is longer. */
const LONGEST_MS = 2 ** 31 - 1;

const bare = (host: string): string => host.replace(/^\[|\]$/g, '').replace(/%.*$/, '');
const isEvery = (host: string): boolean => ['0.0.0.0', '::', '[::]'].includes(host);

/** A URL of this controller as other machines reach it by TLS, which is on the same port. */
export function secureUrlOf(url: string): string {
  const parts = new URL(url);
  if (isEvery(parts.hostname)) parts.hostname = hostname();
  return `https://${parts.host}`;
}

/** What the controller shows of itself: a certificate of its own authority, made at each start and renewed in time; its key is in memory only. */
export async function createProof(authority: Authority, config: ControllerConfig) {
  const make = async (): Promise<ServerTls> => ({ ca: authority.ca, only: false, ...(await authority.own(addressesOf(config))) });
  let tls = await make();
  const clients = new Map<string, ClientTls>();
  return {
    tls: (): ServerTls => tls,
    /** For clients of the host of this name; the same object as long as nothing has changed. */
    trusting: (peer: string) => (): ClientTls => {
      let known = clients.get(peer);
      if (known?.cert !== tls.cert) clients.set(peer, (known = { ca: tls.ca, cert: tls.cert, key: tls.key, peer }));
      return known!;
    },
    /** Renews it after each third of its time; returns how to stop. */
    keep(server: Served, failed: (error: unknown) => void): () => void {
      const timer = setInterval(
        () =>
          void make().then(next => {
            tls = next;
            server.renew(next);
          }, failed),
        Math.min(LONGEST_MS, (config.certificateDays * DAY_MS) / 3),
      ).unref();
      return () => clearInterval(timer);
    },
  };
}

function addressesOf({ listen, publicUrl }: ControllerConfig): string[] {
  const found = ['localhost', '127.0.0.1', '::1', hostname()];
  if (!isEvery(listen)) found.push(bare(listen));
  else found.push(...Object.values(networkInterfaces()).flatMap(list => list?.map(one => bare(one.address)) ?? []));
  if (publicUrl !== undefined) found.push(bare(new URL(publicUrl).hostname));
  return [...new Set(found)];
}
