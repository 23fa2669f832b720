import { clusterRoutes, hostRoutes } from './hosts.ts';
import { imageRoutes } from './images.ts';
import { operationRoutes } from './operations.ts';
import { serviceRoutes } from './service.ts';
import { backupStorageRoutes, primaryStorageRoutes } from './storages.ts';
import { tokenRoutes } from './tokens.ts';
import { volumeRoutes } from './volumes.ts';

/** The controller's whole public HTTP API. */
export const controllerRoutes = {
  ...hostRoutes,
  ...clusterRoutes,
  ...primaryStorageRoutes,
  ...backupStorageRoutes,
  ...imageRoutes,
  ...volumeRoutes,
  ...operationRoutes,
  ...tokenRoutes,
  ...serviceRoutes,
};
