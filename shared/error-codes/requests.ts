import type { ErrorKind } from './kind.ts';

/** Requests and the services themselves. */
export const REQUESTS = {
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
    action:
      'Send "Authorization: Bearer TOKEN" with the token of the service\'s token file, or one made with "cistern token create".',
  },
  TLS_REQUIRED: {
    status: 403,
    retryable: false,
    title: 'Plain HTTP is for loopback only',
    action:
      'Use https. A host gets its certificate when it joins: "cistern host add NAME" (or "cistern host rejoin NAME") prints the command for it.',
  },
  PEER_UNTRUSTED: {
    status: 502,
    retryable: true,
    title: 'The certificate of the other side is not the one that is expected there, or one of the two was refused',
    action:
      'Compare the clocks and addresses of both machines. Where the certificate of a host has expired or belongs to an earlier join: "cistern host rejoin NAME".',
  },
  CA_MISMATCH: {
    status: 502,
    retryable: false,
    title: 'What answers there is not the controller that the fingerprint belongs to',
    action:
      'Nothing was sent to it. Compare address and fingerprint with what "cistern host add" printed; if they are right, somebody is in between.',
  },
  JOIN_REFUSED: {
    status: 403,
    retryable: false,
    title: 'The token does not let this host join any more',
    action: 'Have a new one made with "cistern host add NAME", or "cistern host rejoin NAME" where the host is known already.',
  },
  SECRET_FILE: {
    status: 500,
    retryable: false,
    title: 'A file with a key or token cannot be trusted',
    action: 'Give it to the user of the service alone (chown, chmod 600). If others could read it, replace what it holds.',
  },
  FORBIDDEN: {
    status: 403,
    retryable: false,
    title: 'The role of the token does not allow this',
    action: 'Use a token of the role that the detail names; an admin can make one with "cistern token create".',
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
  DATABASE_DAMAGED: {
    status: 503,
    retryable: false,
    title: 'The database of the controller is damaged',
    action:
      'Check the disk. Stop the controller, keep a copy of its state folder, put its newest backup in the place of the database and start it again: see "Backups" in the README.',
  },
  KEY_DAMAGED: {
    status: 500,
    retryable: false,
    title: 'The key that opens stored secrets is missing or damaged',
    action: 'Put the saved copy of secret.key back into the state folder of the controller, and start it again.',
  },
  TIMEOUT: {
    status: 504,
    retryable: true,
    title: 'It took longer than its deadline',
    action: 'Check the host and the storage named in the detail, then try again.',
  },
  CANCELLED: { status: 409, retryable: false, title: 'It was cancelled', action: 'Start it again if it is still wanted.' },
} as const satisfies Record<string, ErrorKind>;
