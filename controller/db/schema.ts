import type { Generated, Selectable } from 'kysely';
import type { ImageFormat, Media, OperationState, Role, State, Status } from '../../shared/model.ts';

/** Text columns named `..._json` hold JSON; times are RFC 3339 text; ids are text. A host_id of '' means: all hosts share it. */
export interface Tables {
  /** One row: how far the database has come (`Database.position`), how long controllers ran on it, and why it must be recovered. */
  controller: { one: number; sequence: number; elapsed: number; recovery_json: string | null };
  /** Every start of a controller on this database, and where the database was then. */
  runs: { id: string; sequence: number };
  clusters: { id: string; name: string; created_at: string };
  hosts: {
    id: string;
    name: string;
    cluster_id: string;
    url: string;
    token_sealed: string;
    report_hash: string;
    report_sealed: string;
    status: Status;
    state: State;
    reason: string | null;
    facts_json: string | null;
    last_seen_at: string | null;
    /** 1: whatever controller its agent has served before, it is this one's now (`fleet/meet.ts`). */
    adopt: Generated<number>;
    /** Of the join that its certificates are good for; null: it did not join, and is spoken to by tokens, on loopback. */
    generation: Generated<string | null>;
    created_at: string;
  };
  /** The controller's own certificate authority: one row. */
  authority: { one: number; certificate: string; key_sealed: string };
  /** Hosts that may join, once each: new ones, and known ones (`host_id`) anew. `hash`: as in tokens. */
  invitations: {
    name: string;
    host_id: string | null;
    cluster: string;
    url: string | null;
    hash: string;
    expires_at: string;
    used_at: string | null;
  };
  primary_storages: {
    id: string;
    name: string;
    type: string;
    shared: number;
    config_json: string;
    config_sealed: string;
    overcommit: number;
    volume_format: Generated<ImageFormat>;
    /** With `{volume}` and `{layer}` for ids. */
    volume_path: Generated<string>;
    state: State;
    created_at: string;
  };
  primary_storage_clusters: { primary_storage_id: string; cluster_id: string };
  /** One row for each host that should see a primary storage. */
  pools: {
    primary_storage_id: string;
    host_id: string;
    status: Status;
    reason: string | null;
    total: number | null;
    available: number | null;
    measured_at: string | null;
    measured_elapsed: number | null;
    level: 'ok' | 'warn' | 'stop';
  };
  backup_storages: {
    id: string;
    name: string;
    type: string;
    config_json: string;
    config_sealed: string;
    state: State;
    status: Status;
    reason: string | null;
    total: number | null;
    available: number | null;
    /** Limits over all hosts; null: none. */
    bytes_per_second: number | null;
    transfers: number | null;
    created_at: string;
  };
  images: {
    id: string;
    name: string;
    media: Media;
    format: ImageFormat;
    status: 'creating' | 'ready' | 'deleting' | 'deleted' | 'missing';
    size: number | null;
    virtual_size: number | null;
    digest: string | null;
    created_at: string;
  };
  replicas: {
    image_id: string;
    backup_storage_id: string;
    status: 'creating' | 'ready' | 'damaged' | 'deleting' | 'missing';
    reason: string | null;
    created_at: string;
  };
  cache_entries: {
    image_id: string;
    primary_storage_id: string;
    host_id: string;
    status: 'creating' | 'ready' | 'damaged' | 'deleting';
    reason: string | null;
    verified_at: string | null;
    size: number | null;
    last_used_at: string;
    created_at: string;
  };
  volumes: {
    id: string;
    name: string;
    kind: 'root' | 'data';
    status: 'creating' | 'ready' | 'deleting' | 'deleted' | 'missing';
    primary_storage_id: string;
    host_id: string;
    image_id: string | null;
    layer_id: string;
    format: ImageFormat;
    path: string;
    size: number;
    allocated: number | null;
    created_at: string;
    deleted_at: string | null;
    /** Times named so are `controller.elapsed` at that moment: they decide, since clocks jump; those beside them are to read. */
    deleted_elapsed: number | null;
  };
  /** Physical bytes promised to operations under way. */
  reservations: { operation_id: string; primary_storage_id: string; host_id: string; bytes: number };
  operations: {
    id: string;
    kind: string;
    state: OperationState;
    /** What is shown of the request. */
    input_json: string;
    /** The whole request and the plan made of it; they may hold secrets, so both are sealed. */
    request_sealed: string;
    plan_sealed: string;
    output_json: string | null;
    error_json: string | null;
    resources_json: string;
    retry_of: string | null;
    idempotency_key: string | null;
    request_hash: string | null;
    /** Name of the token that it was asked for with; null: the controller did by itself. */
    asked_by: string | null;
    /** What a token needs to cancel it or to start it again: as for what started it. */
    role: Role;
    created_at: string;
    finished_at: string | null;
    finished_elapsed: number | null;
  };
  steps: {
    operation_id: string;
    name: string;
    state: 'done' | 'failed' | 'undone';
    started_at: string;
    finished_at: string;
    result_json: string | null;
  };
  locks: { name: string; operation_id: string; taken_at: string };
  /** What a failed operation could not remove since its host or storage was away; swept up later. */
  garbage: { id: string; host_id: string; waste_json: string; at: string };
  events: {
    seq: Generated<number>;
    at: string;
    type: string;
    resource_kind: string | null;
    resource_id: string | null;
    message: string;
    elapsed: number | null;
    asked_by: string | null;
  };
  tokens: {
    id: string;
    name: string;
    role: Role;
    /** SHA-256 in hex of what it opens with, which is 256 random bits. */
    hash: string;
    expires_at: string | null;
    created_at: string;
    made_by: string | null;
  };
  migrations: { name: string; applied_at: string };
}

export type Row<T extends keyof Tables> = Selectable<Tables[T]>;
