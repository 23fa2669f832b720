/** What is called what in the pool: RBD images, and beside each a small RADOS object, its note, of the same name. */
import { CisternError } from '../../../shared/errors.ts';
import { Id } from '../../../shared/model.ts';

/** The RADOS namespace of notes. */
export const OBJECTS = 'cistern-pool';
/** The protected snapshot of a cached image that clones are made of. */
export const BASE = 'base';

export const AREAS = ['volume', 'trash', 'cache', 'fill'] as const;
export type Area = (typeof AREAS)[number];

/** BAD_REQUEST for what is no id. */
export function imageName(area: Area, id: string): string {
  if (Id.safeParse(id).success) return `${area}-${id}`;
  throw new CisternError('BAD_REQUEST', `"${id}" is not an id`);
}

/** Ids of an area among names. */
export function idsIn(area: Area, names: readonly string[]): string[] {
  const begin = `${area}-`;
  return names.filter(name => name.startsWith(begin) && Id.safeParse(name.slice(begin.length)).success).map(name => name.slice(begin.length)); // prettier-ignore
}

/** How a volume shows to who runs VMs: an image of the pool. */
export const volumePath = (id: string): string => `volume-${id}`;
