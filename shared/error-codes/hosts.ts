import type { ErrorKind } from './kind.ts';

/** Hosts, tasks and programs. */
export const HOSTS = {
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
  CONTROLLER_UNKNOWN: {
    status: 409,
    retryable: true,
    title: 'The agent serves another run of the controller',
    action:
      'Nothing to do where the controller has just been restarted: it makes itself known. Else another controller has this host.',
  },
  AGENT_UNKNOWN: {
    status: 409,
    retryable: true,
    title: 'Reports come from another run of the agent than the one that answers for the host',
    action:
      'Nothing to do where the agent has just been restarted: it is asked, and sends them again. Else another machine runs on a copy of its state folder: stop cistern-agent there, remove that folder, and add the machine as a host of its own.',
  },
  CONTROLLER_OUTDATED: {
    status: 409,
    retryable: false,
    title: "The controller's database is older than what its hosts have seen",
    action:
      'It was put back to an old copy, or another controller works in its place. Look with "cistern controller show" and the scans of the storages, then "cistern controller resume".',
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
  DRIVER_INVALID: {
    status: 500,
    retryable: false,
    title: 'A driver of others cannot be used',
    action: "Correct `drivers` in the agent's configuration, or the driver that the detail names; then start the agent again.",
  },
  DRIVER_UNKNOWN: {
    status: 400,
    retryable: false,
    title: 'No driver for this storage type',
    action: 'Use one of the types named in the detail.',
  },
} as const satisfies Record<string, ErrorKind>;
