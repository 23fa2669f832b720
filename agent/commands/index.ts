import { evictImage } from './cache-evict.ts';
import { fillImageCache } from './cache-fill.ts';
import { verifyCache } from './cache-verify.ts';
import type { Handlers } from './handler.ts';
import { copyReplica } from './image-copy.ts';
import { importImage } from './image-import.ts';
import { removeReplica } from './image-remove.ts';
import { verifyReplica } from './image-verify.ts';
import { connectPool } from './pool-connect.ts';
import { disconnectPool } from './pool-disconnect.ts';
import { purgePool } from './pool-purge.ts';
import { scanPool } from './pool-scan.ts';
import { measurePool } from './pool-usage.ts';
import { connectStore } from './store-connect.ts';
import { scanStore } from './store-scan.ts';
import { validateStore } from './store-validate.ts';
import { copyVolume } from './volume-copy.ts';
import { createVolumes } from './volume-create.ts';
import { deleteVolumes } from './volume-delete.ts';
import { inspectVolume } from './volume-inspect.ts';
import { resizeVolume } from './volume-resize.ts';
import { restoreVolumes } from './volume-restore.ts';
import { uploadVolume } from './volume-upload.ts';

/** What an agent does for each command. */
export const handlers: Handlers = {
  'pool.connect': connectPool,
  'pool.disconnect': disconnectPool,
  'pool.usage': measurePool,
  'pool.scan': scanPool,
  'pool.purge': purgePool,
  'cache.fill': fillImageCache,
  'cache.verify': verifyCache,
  'cache.evict': evictImage,
  'store.connect': connectStore,
  'store.scan': scanStore,
  'store.validate': validateStore,
  'image.verify': verifyReplica,
  'image.copy': copyReplica,
  'image.remove': removeReplica,
  'image.import': importImage,
  'volume.create': createVolumes,
  'volume.resize': resizeVolume,
  'volume.delete': deleteVolumes,
  'volume.restore': restoreVolumes,
  'volume.inspect': inspectVolume,
  'volume.copy': copyVolume,
  'volume.upload': uploadVolume,
};
