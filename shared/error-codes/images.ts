import type { ErrorKind } from './kind.ts';

/** Images that come in, and transfers. */
export const IMAGES = {
  IMAGE_FORMAT_MISMATCH: {
    status: 422,
    retryable: false,
    title: 'The image is not of the declared format',
    action: 'Declare the format that the detail names, if you trust where the image comes from.',
  },
  IMAGE_FORMAT_UNKNOWN: {
    status: 422,
    retryable: false,
    title: "The image's format is not known",
    action: 'Use qcow2, raw, sparse vmdk, vhdx or vdi; declare "raw" for a disk without a partition table.',
  },
  IMAGE_AMBIGUOUS: {
    status: 422,
    retryable: false,
    title: 'The file can be read as two formats',
    action: 'Convert it on a machine you trust into a plain qcow2 or raw file.',
  },
  IMAGE_BACKING_FILE: {
    status: 422,
    retryable: false,
    title: 'The image stands on another file',
    action: 'Flatten it first: qemu-img convert -O qcow2 IN OUT.',
  },
  IMAGE_DATA_FILE: {
    status: 422,
    retryable: false,
    title: 'The image keeps its data in another file',
    action: 'Convert it first: qemu-img convert -O qcow2 IN OUT.',
  },
  IMAGE_FEATURE_UNKNOWN: {
    status: 422,
    retryable: false,
    title: 'The image uses features that are not known to be safe',
    action: 'Convert it with qemu-img to a plain qcow2 (compat 1.1).',
  },
  IMAGE_ENCRYPTED: {
    status: 422,
    retryable: false,
    title: 'The image is encrypted',
    action: 'Decrypt it first; encrypted templates cannot be checked.',
  },
  IMAGE_SNAPSHOTS: {
    status: 422,
    retryable: false,
    title: 'The image holds internal snapshots',
    action: 'Remove them first: qemu-img convert -O qcow2 IN OUT.',
  },
  IMAGE_EXTENTS: {
    status: 422,
    retryable: false,
    title: 'The VMDK names other files or more than one extent',
    action: 'Export it as one sparse or stream-optimized VMDK.',
  },
  IMAGE_EXTENT_PATH: {
    status: 422,
    retryable: false,
    title: 'The VMDK names a file in another folder',
    action: 'Do not use it unless you trust who made it; then export it again as one stream-optimized VMDK.',
  },
  IMAGE_OUTSIDE: {
    status: 422,
    retryable: false,
    title: "The image's header or tables point outside of the file",
    action:
      'No honest program writes that: do not use it unless you trust who made it; then check it there with qemu-img check, and export it again.',
  },
  IMAGE_CORRUPT: {
    status: 422,
    retryable: false,
    title: "The image's header or tables are not valid",
    action: 'Fetch or export it again; check it with qemu-img check where it was made.',
  },
  IMAGE_TRUNCATED: {
    status: 422,
    retryable: false,
    title: 'The image is shorter than its header says',
    action: 'Fetch or export it again: the transfer was cut.',
  },
  IMAGE_TOO_LARGE: {
    status: 422,
    retryable: false,
    title: 'The image is larger than allowed',
    action: "Raise the limit in the agent's configuration if you trust the image.",
  },
  IMAGE_RATIO: {
    status: 422,
    retryable: false,
    title: 'The compressed file expands more than allowed',
    action: 'Decompress it on a machine you trust and import the result.',
  },
  IMAGE_EXPANSION: {
    status: 422,
    retryable: false,
    title: 'The disk is too large for the file that holds it',
    action:
      "If you trust it, convert it yourself: qemu-img convert -O qcow2 IN OUT. The limit of a copy is maxExpansion in the agent's configuration.",
  },
  IMAGE_CHECKSUM: {
    status: 422,
    retryable: false,
    title: 'The image does not have the expected SHA-256',
    action: "Compare the checksum with the publisher's; fetch the image again.",
  },
  URL_REFUSED: {
    status: 422,
    retryable: false,
    title: 'The URL leads where it must not',
    action: "Use a public http(s) address, or allow this one in the agent's configuration (importAllow).",
  },
  URL_FAILED: {
    status: 502,
    retryable: true,
    title: 'The image server did not deliver',
    action: 'Open the URL by hand from the host; check proxy, certificate and path.',
  },
  DIGEST_MISMATCH: {
    status: 502,
    retryable: true,
    title: 'Bytes arrived that are not the ones that were stored',
    action: 'Try again; if it stays, the object is damaged: use another replica and delete this one.',
  },
  MANIFEST_INVALID: {
    status: 502,
    retryable: false,
    title: 'The manifest of the object is damaged',
    action: 'Use another replica, and delete this one.',
  },
  CACHE_DAMAGED: {
    status: 409,
    retryable: false,
    title: 'A cached image is not what was fetched',
    action:
      'Check the disk or server of the pool. "cistern image cache add" fetches the image anew into its place; VMs that run on it keep the damaged copy open until they are stopped and started.',
  },
  TRANSFER_NO_LANE: {
    status: 501,
    retryable: false,
    title: 'The two storages have no way of moving bytes in common',
    action: 'The detail prints what each side offers; use another storage for one side.',
  },
  TRANSFER_CHANGED: {
    status: 409,
    retryable: true,
    title: 'What an earlier attempt stored is of another image',
    action: 'Try again: what was stored has been removed.',
  },
  TRANSFER_STALLED: {
    status: 504,
    retryable: true,
    title: 'No byte moved for too long',
    action: 'Check the network between host and storage, then try again.',
  },
  IO_ERROR: {
    status: 500,
    retryable: false,
    title: 'Reading or writing a file failed',
    action: 'Check the disk (journalctl -k on the host tells of I/O errors) and the permissions of the path in the detail.',
  },
} as const satisfies Record<string, ErrorKind>;
