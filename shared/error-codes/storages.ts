import type { ErrorKind } from './kind.ts';

/** Primary and backup storages. */
export const STORAGES = {
  POOL_CONFIG: {
    status: 400,
    retryable: false,
    title: 'The storage configuration is not valid',
    action: 'Correct the fields named in the detail.',
  },
  POOL_IDENTITY: {
    status: 409,
    retryable: false,
    title: 'This is not the pool it should be',
    action: 'Check the export or folder and the mount table (findmnt): pool.json there belongs to another pool or is missing.',
  },
  POOL_UNAVAILABLE: {
    status: 503,
    retryable: true,
    title: 'The pool cannot be used now',
    action: 'Check the storage server and the mount (findmnt) on the host.',
  },
  POOL_FULL: {
    status: 507,
    retryable: true,
    title: 'The pool is full',
    action: 'Empty the trash, evict cached images or grow the storage.',
  },
  POOL_IO_ERROR: {
    status: 500,
    retryable: false,
    title: 'The disk of the pool failed to read or write',
    action:
      "Look at the disk of the file in the detail: the host's kernel log (journalctl -k), or the storage server's. What was being made is given up; try again once the disk is mended.",
  },
  MOUNT_FAILED: {
    status: 502,
    retryable: true,
    title: 'Mounting the storage failed',
    action: 'Check server, export and options; try the same mount by hand on the host and look at findmnt.',
  },
  MOUNT_OPTION_REFUSED: {
    status: 400,
    retryable: false,
    title: 'A mount option is not allowed',
    action: 'Use only the options listed in the detail.',
  },
  KERNEL_LACKS_NFS: {
    status: 501,
    retryable: false,
    title: 'The kernel of the host cannot mount NFS',
    action: 'Install a kernel with NFS client support or load its nfs module, then reconnect.',
  },
  VOLUME_MISSING: {
    status: 404,
    retryable: false,
    title: "The volume's file is not in the pool",
    action: 'Check the pool on the host; restore the file or delete the volume.',
  },
  VOLUME_IN_USE: {
    status: 409,
    retryable: true,
    title: 'The volume is open in another program',
    action: 'Stop the VM that uses the volume, then try again.',
  },
  STORE_CONFIG: {
    status: 400,
    retryable: false,
    title: 'The backup storage configuration is not valid',
    action: 'Correct the fields named in the detail.',
  },
  STORE_AUTH: {
    status: 502,
    retryable: false,
    title: 'The backup storage refused the credentials',
    action: 'Check user, key or password, and that the server accepts them from the host.',
  },
  STORE_HOST_KEY: {
    status: 502,
    retryable: false,
    title: "The server's host key is not the pinned one",
    action:
      'If the server was reinstalled, pin its new key after checking it on the server; otherwise somebody may be in between.',
  },
  STORE_UNREACHABLE: {
    status: 503,
    retryable: true,
    title: 'The backup storage does not answer',
    action: 'Check address, port and firewall between host and server.',
  },
  STORE_PERMISSION: {
    status: 502,
    retryable: false,
    title: 'The backup storage refused access to a path',
    action: 'Give the user read and write permission on the path named in the detail.',
  },
  STORE_BUSY: {
    status: 503,
    retryable: true,
    title: 'The backup storage asks for a pause',
    action: 'Try again later, or allow fewer streams or bytes per second to this storage.',
  },
  STORE_LIMIT: {
    status: 413,
    retryable: false,
    title: 'The backup storage takes no object so large',
    action: 'Use another kind of backup storage for this image.',
  },
  STORE_FULL: { status: 507, retryable: true, title: 'The backup storage is full', action: 'Delete images there or grow it.' },
  STORE_IO_ERROR: {
    status: 500,
    retryable: false,
    title: 'The disk of the backup storage failed to read or write',
    action:
      "Look at the disk of the file in the detail: the host's kernel log (journalctl -k), or the storage server's. What was being written is given up; try again once the disk is mended.",
  },
  OBJECT_MISSING: {
    status: 404,
    retryable: false,
    title: 'The object is not on the backup storage',
    action: 'Check the path, or use another replica of the image.',
  },
} as const satisfies Record<string, ErrorKind>;
