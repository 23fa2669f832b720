import 'reflect-metadata';
import { createHash, randomBytes, type webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { isIP } from 'node:net';
import { CisternError } from '../shared/errors.ts';
import { CONTROLLER_NAME } from '../shared/tls/names.ts';
import { KEYS, newKeys } from '../shared/tls/request.ts';
import type { Database } from './db/database.ts';
import type { Secrets } from './secrets.ts';

const DAY_MS = 86_400_000;
const CA_DAYS = 20 * 365;
/** Certificates are good from a day before they were made: clocks differ. */
const SKEW_MS = DAY_MS;

/** The controller's own certificate authority. Its key lies in the database, sealed as other secrets are, so backups hold both. */
export interface Authority {
  /** Its certificate, PEM. */
  ca: string;
  /** SHA-256 of that, in hexadecimal digits: what a host that joins is told beforehand. */
  fingerprint: string;
  /** A certificate for the key in a request (PEM), which decides nothing else in it. BAD_REQUEST where it is none, or of another kind. */
  issue(csr: string, name: string, addresses: string[]): Promise<string>;
  /** Key and certificate of this controller itself, made anew at each call. */
  own(addresses: string[]): Promise<{ cert: string; key: string }>;
}

/** Opens the authority of a database; made where there is none yet. `days`: how long certificates last. */
export async function openAuthority(db: Database, secrets: Secrets, days: number): Promise<Authority> {
  const row = (await db.read.selectFrom('authority').selectAll().executeTakeFirst()) ?? (await make(db, secrets));
  const pem = secrets.open<string>(row.key_sealed, 'authority.key_sealed/1');
  const signingKey = await crypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(pem), KEYS, false, ['sign']);
  const ca = new X509Certificate(row.certificate);
  const sign = async (publicKey: webcrypto.CryptoKey, name: string, addresses: string[]): Promise<string> => {
    const now = Date.now();
    const certificate = await X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: [{ CN: [name] }],
      issuer: ca.subjectName,
      notBefore: new Date(now - SKEW_MS),
      notAfter: new Date(now + days * DAY_MS),
      publicKey,
      signingKey,
      signingAlgorithm: KEYS,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        new SubjectAlternativeNameExtension(
          addresses.map(value => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value })),
        ),
      ],
    });
    return certificate.toString('pem');
  };
  return {
    ca: row.certificate,
    fingerprint: createHash('sha256').update(new Uint8Array(ca.rawData)).digest('hex'),
    async issue(csr, name, addresses) {
      return sign(await keyOf(csr), name, addresses);
    },
    async own(addresses) {
      const { pair, key } = await newKeys();
      return { cert: await sign(pair.publicKey, CONTROLLER_NAME, addresses), key };
    },
  };
}

const serial = (): string => `40${randomBytes(15).toString('hex')}`;

async function make(db: Database, secrets: Secrets): Promise<{ certificate: string; key_sealed: string }> {
  const { pair, key } = await newKeys();
  const now = Date.now();
  const ca = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: [{ CN: [`cistern authority ${randomBytes(8).toString('hex')}`] }],
    notBefore: new Date(now - SKEW_MS),
    notAfter: new Date(now + CA_DAYS * DAY_MS),
    keys: pair,
    signingAlgorithm: KEYS,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  });
  const made = { one: 1, certificate: ca.toString('pem'), key_sealed: secrets.seal(key, 'authority.key_sealed/1') };
  await db.write(trx => trx.insertInto('authority').values(made).execute());
  return made;
}

/** The public key of a request whose sender has the private one. */
async function keyOf(csr: string): Promise<webcrypto.CryptoKey> {
  try {
    const request = new Pkcs10CertificateRequest(csr);
    const key = await request.publicKey.export(KEYS, ['verify'], crypto);
    if (await request.verify(crypto)) return key;
  } catch {
    // what the parser says of strangers' bytes helps nobody
  }
  throw new CisternError('BAD_REQUEST', 'csr: not a signed request for a certificate of a P-256 key');
}
