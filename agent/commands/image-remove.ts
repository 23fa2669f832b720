import { removeImage } from '../backup/layout.ts';
import type { Handler } from './handler.ts';

export const removeReplica: Handler<'image.remove'> = async ({ store, imageId }, ctx) => {
  await removeImage(await ctx.store(store), imageId);
  return {};
};
