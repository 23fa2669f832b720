import 'reflect-metadata';
import type { webcrypto } from 'node:crypto';
import { Pkcs10CertificateRequestGenerator, PemConverter } from '@peculiar/x509';

/** Keys of all sides: ECDSA on P-256. */
export const KEYS = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** A new key pair; the private key as PKCS #8 in PEM. */
export async function newKeys(): Promise<{ pair: webcrypto.CryptoKeyPair; key: string }> {
  const pair = await crypto.subtle.generateKey(KEYS, true, ['sign', 'verify']);
  return { pair, key: PemConverter.encode(await crypto.subtle.exportKey('pkcs8', pair.privateKey), 'PRIVATE KEY') };
}

/** A new key, and the request to certify it. It asks for no name: the controller knows whose it is. */
export async function newRequest(): Promise<{ key: string; csr: string }> {
  const { pair, key } = await newKeys();
  const csr = await Pkcs10CertificateRequestGenerator.create({ keys: pair, signingAlgorithm: KEYS });
  return { key, csr: csr.toString('pem') };
}
