import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';

/** What certificates of the controller's authority are made out to, in their common names (at most 64 characters). */
export const CONTROLLER_NAME = 'cistern controller';

/** A host since one join: a later join makes another name, so that certificates of the earlier one are worth nothing any more. */
export const hostName = (hostId: string, generation: string): string => `host ${hostId} ${generation}`;

/** The host and the join that a certificate's name speaks of. */
export function parseHostName(name: string): { hostId: string; generation: string } | undefined {
  const [, hostId, generation] = /^host ([0-9a-f-]{36}) ([0-9a-f]{16})$/.exec(name) ?? [];
  return hostId === undefined || generation === undefined ? undefined : { hostId, generation };
}

/** The name in the certificate that the other side showed and TLS verified; undefined where it showed none, or one that is not good. */
export function peerName(socket: Socket): string | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  const name: unknown = socket.getPeerCertificate().subject?.CN;
  return typeof name === 'string' ? name : undefined;
}

/** Whether `host` (of a URL, or a remote address) is this machine itself by its loopback interface. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || /^(::ffff:)?127(\.\d{1,3}){3}$/.test(host) || /^\[?::1\]?$/.test(host);
