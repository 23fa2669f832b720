import { z } from 'zod';
import { Problem } from './errors.ts';
import { Id } from './id.ts';
import { Progress } from './task.ts';

export { Id };

export const Name = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
    'a name has 1 to 63 letters, digits, dots, underscores or hyphens and starts with a letter or digit',
  )
  .meta({ description: 'Unique among its kind.' });
/** A whole number of bytes. */
export const Bytes = z.int().min(0).meta({ description: 'bytes' });
export const Time = z.iso.datetime().meta({ description: 'RFC 3339, UTC' });
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'a SHA-256 is 64 lower-case hex digits');

export const Status = z.enum(['connecting', 'connected', 'disconnected']);
export const State = z.enum(['enabled', 'maintenance', 'disabled']);
export type Status = z.infer<typeof Status>;
export type State = z.infer<typeof State>;

/** What a token lets its holder do, each more than the one before: look; daily work; hosts, clusters, storages and tokens. */
export const Role = z.enum(['reader', 'operator', 'admin']).meta({
  description:
    'reader: sees everything; operator: also images, volumes, cache and operations; admin: also hosts, clusters, storages and tokens',
});
export type Role = z.infer<typeof Role>;

/** Who asked for something. */
const By = z.string().nullable().describe('name of the token that it was asked for with; null: cistern itself did');

/** What a driver on an agent offers: its type, whether hosts share one such pool, and the JSON Schema of its configuration. */
export const ImageFormat = z.enum(['qcow2', 'raw']);
/** Formats that can come in; they are converted to an ImageFormat. */
export const SourceFormat = z.enum(['qcow2', 'raw', 'vmdk', 'vhdx', 'vdi']);
export type Media = z.infer<typeof Media>;
export type ImageFormat = z.infer<typeof ImageFormat>;

/** Of a volume as its driver keeps it; the path has `{volume}` and `{layer}` in the place of ids. */
const VolumeLayout = z.object({ format: ImageFormat, path: z.string() });

export const DriverFacts = z.object({
  type: z.string(),
  title: z.string(),
  shared: z.boolean(),
  /** Of primary storages. */
  volumes: VolumeLayout.optional(),
  /** JSON Schema; fields marked `writeOnly` are secrets. */
  config: z.record(z.string(), z.unknown()),
});
export type DriverFacts = z.infer<typeof DriverFacts>;

export const Facts = z
  .object({
    agentVersion: z.string(),
    hostname: z.string(),
    kernel: z.string(),
    arch: z.string(),
    cpus: z.int(),
    memory: Bytes,
    /** Program name -> version, or null where it is not installed. */
    tools: z.record(z.string(), z.string().nullable()),
    filesystems: z.array(z.string()).describe('file systems that the kernel can mount'),
    cage: z
      .object({ whole: z.boolean(), detail: z.string() })
      .describe('whether programs that read untrusted images are locked in on this host, and how'),
    primary: z.array(DriverFacts),
    backup: z.array(DriverFacts),
    spool: z.object({ total: Bytes, available: Bytes }),
    startedAt: Time,
  })
  .meta({ id: 'Facts' });
export type Facts = z.infer<typeof Facts>;

export const Cluster = z.object({ id: Id, name: Name, createdAt: Time }).meta({ id: 'Cluster' });
export type Cluster = z.infer<typeof Cluster>;

export const Host = z
  .object({
    id: Id,
    name: Name,
    clusterId: Id,
    url: z.url(),
    status: Status,
    state: State,
    reason: z.string().nullable().describe('why it is not connected'),
    facts: Facts.nullable(),
    lastSeenAt: Time.nullable(),
    createdAt: Time,
  })
  .meta({ id: 'Host' });
export type Host = z.infer<typeof Host>;

export const Capacity = z
  .object({
    total: Bytes,
    available: Bytes.describe('physically free'),
  })
  .meta({ id: 'Capacity' });
export type Capacity = z.infer<typeof Capacity>;

/** The book-keeping of one primary storage, or of one host's part of a local one. */
export const PoolCapacity = Capacity.extend({
  provisioned: Bytes.describe('virtual size of all volumes'),
  reserved: Bytes.describe('promised to work under way'),
  volumes: Bytes.describe('what volumes take, as last measured'),
  cache: Bytes.describe('cached images'),
  trash: Bytes.describe('deleted volumes not yet purged'),
  overcommit: z.number().describe('how many times the physical size may be provisioned'),
  level: z.enum(['ok', 'warn', 'stop']).describe('how full it is, by the thresholds of the controller'),
}).meta({ id: 'PoolCapacity' });
export type PoolCapacity = z.infer<typeof PoolCapacity>;

/** One host's view of a primary storage. */
export const PoolHost = z.object({
  hostId: Id,
  status: Status,
  reason: z.string().nullable(),
  capacity: PoolCapacity.nullable(),
});
export type PoolHost = z.infer<typeof PoolHost>;

export const DriverConfig = z
  .record(z.string(), z.unknown())
  .describe('settings of the driver; secrets come in here once and never leave');

export const PrimaryStorage = z
  .object({
    id: Id,
    name: Name,
    type: z.string(),
    shared: z.boolean().describe('whether all hosts see one pool (nfs) or each has its own (local)'),
    config: DriverConfig,
    clusterIds: z.array(Id),
    state: State,
    status: Status,
    reason: z.string().nullable(),
    capacity: PoolCapacity.nullable().describe('null while unknown'),
    hosts: z.array(PoolHost),
    createdAt: Time,
  })
  .meta({ id: 'PrimaryStorage' });
export type PrimaryStorage = z.infer<typeof PrimaryStorage>;

/** Limits of a backup storage, over all hosts; null: none. */
export const StoreLimits = z.object({
  bytesPerSecond: z
    .int()
    .min(2 ** 20)
    .nullable()
    .describe('what may go to and from it, of which every transfer gets an equal share'),
  transfers: z.int().min(1).max(1000).nullable().describe('at once; more wait in line'),
});
export type StoreLimits = z.infer<typeof StoreLimits>;

export const BackupStorage = z
  .object({
    id: Id,
    name: Name,
    type: z.string(),
    config: DriverConfig,
    state: State,
    status: Status,
    reason: z.string().nullable(),
    capacity: Capacity.nullable().describe('null where the storage does not tell'),
    limits: StoreLimits,
    createdAt: Time,
  })
  .meta({ id: 'BackupStorage' });
export type BackupStorage = z.infer<typeof BackupStorage>;

/**
 * Of an image or a volume; deleted ones are remembered while something stands on them. `missing`: it was not where it should be when
 * the database was recovered.
 */
export const LifeStatus = z.enum(['creating', 'ready', 'deleting', 'deleted', 'missing']);
export const Media = z.enum(['root', 'data', 'iso']);
export type SourceFormat = z.infer<typeof SourceFormat>;

export const Replica = z.object({
  backupStorageId: Id,
  status: z.enum(['creating', 'ready', 'damaged', 'deleting', 'missing']),
  reason: z.string().nullable().describe('what is damaged'),
  createdAt: Time,
});
export type Replica = z.infer<typeof Replica>;

export const Image = z
  .object({
    id: Id,
    name: Name,
    media: Media,
    format: ImageFormat,
    status: LifeStatus,
    size: Bytes.nullable().describe('bytes of the stored object'),
    virtualSize: Bytes.nullable().describe('size of the disk that a guest sees'),
    digest: Sha256.nullable().describe('SHA-256 over the part digests of the manifest'),
    replicas: z.array(Replica),
    createdAt: Time,
  })
  .meta({ id: 'Image' });
export type Image = z.infer<typeof Image>;

export const CacheEntry = z
  .object({
    imageId: Id,
    primaryStorageId: Id,
    hostId: Id.nullable().describe('set for local pools: each host has its own cache'),
    status: z.enum(['creating', 'ready', 'damaged', 'deleting']),
    reason: z.string().nullable().describe('what is damaged'),
    verifiedAt: Time.nullable().describe('when it was last read from end to end and found right'),
    size: Bytes.nullable(),
    volumes: z.int().describe('volumes that stand on it'),
    lastUsedAt: Time,
    createdAt: Time,
  })
  .meta({ id: 'CacheEntry' });
export type CacheEntry = z.infer<typeof CacheEntry>;

export const VolumeKind = z.enum(['root', 'data']);

export const Volume = z
  .object({
    id: Id,
    name: Name,
    kind: VolumeKind,
    status: LifeStatus,
    primaryStorageId: Id,
    hostId: Id.nullable().describe('set on local pools'),
    imageId: Id.nullable(),
    format: ImageFormat,
    size: Bytes.describe('size of the disk that a guest sees'),
    allocated: Bytes.nullable().describe('bytes it takes in the pool, as last measured'),
    path: z.string().nullable().describe('in the pool: a file, relative to its root, or an RBD image'),
    createdAt: Time,
    deletedAt: Time.nullable(),
  })
  .meta({ id: 'Volume' });
export type Volume = z.infer<typeof Volume>;

export const ResourceKind = z.enum([
  'host',
  'cluster',
  'primary-storage',
  'backup-storage',
  'image',
  'volume',
  'operation',
  'token',
]);
export const ResourceRef = z.object({ kind: ResourceKind, id: Id });
export type ResourceRef = z.infer<typeof ResourceRef>;

export const OperationState = z.enum(['queued', 'running', 'cancelling', 'undoing', 'succeeded', 'failed', 'cancelled']);
export type OperationState = z.infer<typeof OperationState>;

export const OperationStep = z.object({
  name: z.string(),
  state: z.enum(['running', 'done', 'failed', 'undone']),
  startedAt: Time,
  finishedAt: Time.nullable(),
  /** What the step returned, such as a transfer's lane and counts. */
  result: z.unknown().optional(),
});
export type OperationStep = z.infer<typeof OperationStep>;

export const Operation = z
  .object({
    id: Id,
    kind: z.string(),
    state: OperationState,
    input: z.record(z.string(), z.unknown()).describe('as requested, without secrets'),
    output: z.record(z.string(), z.unknown()).nullable(),
    resources: z.array(ResourceRef).describe('what it works on'),
    steps: z.array(OperationStep),
    progress: Progress.nullable(),
    error: Problem.nullable(),
    retryOf: Id.nullable(),
    by: By,
    createdAt: Time,
    finishedAt: Time.nullable(),
  })
  .meta({ id: 'Operation' });
export type Operation = z.infer<typeof Operation>;

export const FINAL_STATES: readonly OperationState[] = ['succeeded', 'failed', 'cancelled'];

export const Event = z
  .object({
    seq: z.int(),
    at: Time,
    type: z.string().describe('such as operation.succeeded or host.disconnected'),
    resource: ResourceRef.nullable(),
    message: z.string(),
    by: By,
  })
  .meta({ id: 'Event' });
export type Event = z.infer<typeof Event>;

/** A token of the API as it is listed: what it opens with is shown once, when it is made, and kept only as a hash. */
export const Token = z
  .object({
    id: Id,
    name: Name,
    role: Role,
    expiresAt: Time.nullable().describe('null: when it is deleted'),
    createdAt: Time,
    by: By,
  })
  .meta({ id: 'Token' });
export type Token = z.infer<typeof Token>;
