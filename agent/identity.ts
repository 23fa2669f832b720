import { X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { joinRoutes } from '../shared/contract/operations.ts';
import { writeDurable } from '../shared/durable.ts';
import { CisternError } from '../shared/errors.ts';
import { createClient } from '../shared/http/client.ts';
import type { Logger } from '../shared/log.ts';
import { readSecretFile } from '../shared/secret-file.ts';
import type { ClientTls } from '../shared/tls/client.ts';
import type { ServerTls } from '../shared/tls/door.ts';
import { CONTROLLER_NAME } from '../shared/tls/names.ts';

/** Who this host is since it joined. The key was made here and is nowhere else. */
const Identity = z.strictObject({
  hostId: z.string(),
  /** The controller's address, as it was typed when the host joined. */
  controller: z.string(),
  ca: z.string(),
  certificate: z.string(),
  key: z.string(),
  /** When the certificate came, in milliseconds since 1970. */
  since: z.number(),
});
export type Identity = z.infer<typeof Identity>;

/** How often it is looked whether the certificate is to be renewed, and how soon that is tried again at the earliest. */
const LOOK_MS = 2000;

export const identityFile = (stateDir: string): string => join(stateDir, 'identity');

/** Keeps the identity (0600): all of it or none. */
export const writeIdentity = (stateDir: string, identity: Identity): void =>
  writeDurable(identityFile(stateDir), `${JSON.stringify(identity)}\n`);

export const clientOf = ({ ca, certificate, key }: Identity): ClientTls => ({
  ca,
  cert: certificate,
  key,
  peer: CONTROLLER_NAME,
});

/** The identity of this host, where it has joined, renewed in time. SECRET_FILE where others could read it, or it is not whole. */
export function openIdentity(stateDir: string, log: Logger) {
  let identity = read(stateDir);
  let client = identity && clientOf(identity);
  const serverOf = ({ ca, certificate, key }: Identity): ServerTls => ({ ca, cert: certificate, key, only: true });

  /** Asks for a certificate of a new key. The one before stays good until it expires. */
  async function renew(now: Identity): Promise<Identity> {
    // imported when it is needed: it takes some MiB
    const { newRequest } = await import('../shared/tls/request.ts');
    const { key, csr } = await newRequest();
    const controller = createClient(joinRoutes, {
      baseUrl: now.controller,
      tls: () => clientOf(now),
      timeoutSeconds: 10,
      unreachable: 'CONTROLLER_UNREACHABLE',
    });
    try {
      const { certificate } = await controller.renewCertificate({ body: { csr } });
      return { ...now, key, certificate, since: Date.now() };
    } finally {
      controller.close();
    }
  }

  return {
    get: (): Identity | undefined => identity,
    client: (): ClientTls | undefined => client,
    server: (): ServerTls | undefined => identity && serverOf(identity),
    /** Renews the certificate after a third of its time, and tries again for the rest of it; returns how to stop. */
    keep(renewed: (tls: ServerTls) => void): () => void {
      if (!identity) return () => undefined;
      let next = dueAt(identity);
      let busy = false;
      const look = async (now: Identity): Promise<void> => {
        busy = true;
        try {
          identity = await renew(now);
          client = clientOf(identity);
          renewed(serverOf(identity));
          next = dueAt(identity);
          writeIdentity(stateDir, identity);
          log.info({ until: endOf(identity) }, 'the certificate of this host was renewed');
        } catch (error) {
          next = Date.now() + Math.max(LOOK_MS, (endOf(now).getTime() - now.since) / 100);
          log.warn({ err: error, until: endOf(now) }, 'the certificate of this host could not be renewed; it is tried again');
        } finally {
          busy = false;
        }
      };
      const timer = setInterval(() => {
        if (!busy && identity && Date.now() >= next) void look(identity);
      }, LOOK_MS).unref();
      return () => clearInterval(timer);
    },
  };
}

const endOf = ({ certificate }: Identity): Date => new Date(new X509Certificate(certificate).validTo);
const dueAt = (identity: Identity): number => identity.since + (endOf(identity).getTime() - identity.since) / 3;

function read(stateDir: string): Identity | undefined {
  const file = identityFile(stateDir);
  if (!existsSync(file)) return undefined;
  try {
    return Identity.parse(JSON.parse(readSecretFile(file)));
  } catch (error) {
    if (error instanceof CisternError) throw error;
    // the reason could quote the key
    throw new CisternError('SECRET_FILE', `reading ${file}: it is not what joining wrote there`, {
      action: 'Let the host join anew: "cistern host rejoin NAME" prints the command for it.',
    });
  }
}
