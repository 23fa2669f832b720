interface ErrorKind {
  /** HTTP status of the problem document. */
  status: number;
  /** Whether the same request may succeed later with nothing changed but the world. */
  retryable: boolean;
  /** One line: what kind of thing went wrong. */
  title: string;
  /** What the reader should do about it. */
  action: string;
}

/**
 * Every error that controller, agent and CLI know, by its stable code. Codes are never renamed: scripts and alerts stand on them.
 * `detail` of a problem says what was tried, on what, and what came back; `action` here says what to do.
 */
export const ERRORS = {
  // requests
  CONTROLLER_UNREACHABLE: {
    status: 503,
    retryable: true,
    title: 'The controller does not answer',
    action: 'Check that cistern-controller runs and that CISTERN_URL (or --url) names its address.',
  },
  BAD_REQUEST: {
    status: 400,
    retryable: false,
    title: 'The request is not valid',
    action: 'Correct the fields named in the detail and send it again.',
  },
  UNAUTHORIZED: {
    status: 401,
    retryable: false,
    title: 'The bearer token is missing or wrong',
    action: 'Send "Authorization: Bearer TOKEN" with the token that the service wrote to its token file at first start.',
  },
  NOT_FOUND: {
    status: 404,
    retryable: false,
    title: 'There is no such thing',
    action: 'Check the name or id with the list command; it may have been deleted.',
  },
  NAME_TAKEN: {
    status: 409,
    retryable: false,
    title: 'The name is taken',
    action: 'Choose another name, or delete or rename the thing that has it.',
  },
  WRONG_STATE: {
    status: 409,
    retryable: false,
    title: 'Its present state does not allow this',
    action: 'Look at its status and reason, bring it into the state named in the detail, then try again.',
  },
  IN_USE: {
    status: 409,
    retryable: false,
    title: 'Something still stands on it',
    action: 'Delete or move what the detail names first.',
  },
  IDEMPOTENCY_MISMATCH: {
    status: 422,
    retryable: false,
    title: 'This idempotency key was used with another request',
    action: 'Use a new Idempotency-Key for a new request.',
  },
  TOO_LARGE: {
    status: 413,
    retryable: false,
    title: 'The request is larger than allowed',
    action: 'Send less, or raise the limit named in the detail.',
  },
  BUSY: {
    status: 429,
    retryable: true,
    title: 'Too much is asked at once',
    action: 'Wait as long as Retry-After says, then try again.',
  },
  INTERNAL: {
    status: 500,
    retryable: true,
    title: 'An unexpected error',
    action: 'Look in the log of the service for this error; if it comes again, report it with that log entry.',
  },
  DATABASE_UNAVAILABLE: {
    status: 503,
    retryable: true,
    title: 'The controller cannot write its database',
    action: 'Check free space and permissions of the state folder; the controller goes on by itself once it can write.',
  },
  TIMEOUT: {
    status: 504,
    retryable: true,
    title: 'It took longer than its deadline',
    action: 'Check the host and the storage named in the detail, then try again.',
  },
  CANCELLED: { status: 409, retryable: false, title: 'It was cancelled', action: 'Start it again if it is still wanted.' },
  // hosts and tasks
  HOST_UNREACHABLE: {
    status: 503,
    retryable: true,
    title: 'The agent of a host does not answer',
    action: 'Check that cistern-agent runs on the host and that the controller can reach its address.',
  },
  HOST_REFUSED: {
    status: 502,
    retryable: false,
    title: 'The agent of a host refused the controller',
    action: "Add the host again with the token in the agent's token file.",
  },
  NO_HOST: {
    status: 409,
    retryable: true,
    title: 'No host can do this',
    action: 'Connect and enable a host in a cluster to which the storage is attached.',
  },
  NO_STORAGE: {
    status: 409,
    retryable: true,
    title: 'No storage fits',
    action: 'Connect and enable a storage that meets the request; the detail names each one and why it was passed over.',
  },
  NO_CAPACITY: {
    status: 507,
    retryable: true,
    title: 'There is not enough room',
    action: 'Free space, add storage, or raise the over-commit ratio.',
  },
  TASK_UNKNOWN: {
    status: 404,
    retryable: true,
    title: 'The agent does not know this task',
    action: 'Nothing to do: the controller sends the task again.',
  },
  TASK_ID_REUSED: {
    status: 409,
    retryable: false,
    title: 'This task id was used with another command',
    action: 'Use a new id for a new command.',
  },
  TASK_INTERRUPTED: {
    status: 503,
    retryable: true,
    title: 'The agent was restarted while the task ran',
    action: 'Retry the operation; what the task had begun has been removed.',
  },
  WORKER_DIED: {
    status: 503,
    retryable: true,
    title: 'The worker process of the pool died',
    action: "Retry the operation; if it dies again, look in the agent's log for the reason.",
  },
  TOOL_MISSING: {
    status: 501,
    retryable: false,
    title: 'A program that this needs is not on the host',
    action: 'Install the package named in the detail on the host.',
  },
  TOOL_FAILED: {
    status: 500,
    retryable: false,
    title: 'A program on the host failed',
    action: 'Read what it said in the detail; run it by hand on the host if that is not enough.',
  },
  DRIVER_UNKNOWN: {
    status: 400,
    retryable: false,
    title: 'No driver for this storage type',
    action: 'Use one of the types named in the detail.',
  },
  // primary storage
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
  // backup storage
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
  STORE_FULL: { status: 507, retryable: true, title: 'The backup storage is full', action: 'Delete images there or grow it.' },
  OBJECT_MISSING: {
    status: 404,
    retryable: false,
    title: 'The object is not on the backup storage',
    action: 'Check the path, or use another replica of the image.',
  },
  // images
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
    title: 'The image expands more than allowed',
    action: 'Decompress it on a machine you trust and import the result.',
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
  // transfers
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
  TRANSFER_NO_LANE: {
    status: 501,
    retryable: false,
    title: 'The two storages have no way of moving bytes in common',
    action: 'The detail prints what each side offers; use another storage for one side.',
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
    action: 'Check the disk and the permissions of the path in the detail.',
  },
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof ERRORS;
