import type { Workflow } from '../operations/workflow.ts';
import { addBackupStorage, deleteBackupStorage, refreshBackupStorage } from './backup-storage.ts';
import { addToCache, evictFromCache } from './cache.ts';
import { addHost, reconnectHost, removeHost } from './host.ts';
import { deleteImage } from './image-delete.ts';
import { resumeController } from './controller-resume.ts';
import { deleteReplica } from './image-replica-delete.ts';
import { replicateImage } from './image-replicate.ts';
import { importImage } from './image-import.ts';
import { migrateVolume } from './volume-migrate.ts';
import { uploadVolume } from './volume-upload.ts';
import { addPrimaryStorage, refreshPrimaryStorage } from './primary-storage.ts';
import { attachPrimaryStorage, detachPrimaryStorage } from './primary-storage-clusters.ts';
import { maintainPrimaryStorage } from './primary-storage-maintain.ts';
import { deletePrimaryStorage } from './primary-storage-delete.ts';
import { scanPrimaryStorage } from './scan.ts';
import { scanBackupStorage } from './store-scan.ts';
import { validateBackupStorage } from './store-validate.ts';
import { emptyTrash } from './trash.ts';
import { verifyCache, verifyImage } from './verify.ts';
import { createVolumes } from './volume-create.ts';
import { deleteVolumes, resizeVolume } from './volume.ts';

/** Every operation that can be started, and so taken up again after a crash. */
export const WORKFLOWS = [
  addHost,
  reconnectHost,
  removeHost,
  addPrimaryStorage,
  attachPrimaryStorage,
  detachPrimaryStorage,
  refreshPrimaryStorage,
  maintainPrimaryStorage,
  deletePrimaryStorage,
  addBackupStorage,
  refreshBackupStorage,
  deleteBackupStorage,
  addToCache,
  evictFromCache,
  verifyCache,
  verifyImage,
  importImage,
  deleteImage,
  replicateImage,
  deleteReplica,
  createVolumes,
  resizeVolume,
  deleteVolumes,
  uploadVolume,
  migrateVolume,
  emptyTrash,
  scanPrimaryStorage,
  scanBackupStorage,
  validateBackupStorage,
  resumeController,
] as unknown as readonly Workflow<never, never>[];
