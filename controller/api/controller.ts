import { resumeController } from '../workflows/controller-resume.ts';
import { type Api, type Handlers, startOperation } from './api.ts';

/** The controller itself. */
export function controllerHandlers(api: Api): Handlers<'getController' | 'resumeController'> {
  return {
    getController: () => ({ version: api.version, recovery: api.services.recovery.current() }),
    resumeController: (_input, context) => startOperation(api, resumeController, {}, context),
  };
}
