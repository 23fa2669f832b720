import { CisternError } from '../../shared/errors.ts';
import type { RangeEnd, Sink, Source, ToolLane } from './ends.ts';
import type { Readable } from 'node:stream';

/** How bytes will go: the abilities that both ends have, picked from them. */
export type Plan =
  | { lane: 'copy'; copy: (signal: AbortSignal) => Promise<Source> }
  | { lane: 'tool'; tool: ToolLane; file: string }
  | { lane: 'ranges'; read: (signal: AbortSignal) => Promise<RangeEnd>; write: (signal: AbortSignal) => Promise<RangeEnd> }
  | {
      lane: 'stream';
      read: (signal: AbortSignal) => Promise<Readable>;
      write: (body: Readable, signal: AbortSignal) => Promise<void>;
    };

/**
 * The cheapest lane that both ends have: a copy inside one site, a tool where one was configured and the other end is a file, parallel ranges, else one
 * stream. TRANSFER_NO_LANE prints both offers.
 */
export function plan(source: Source, sink: Sink): Plan {
  const { place, stored = source.size } = source;
  if (place && sink.copy && sink.site === place.site)
    return { lane: 'copy', copy: signal => sink.copy!(place.object, stored, signal) };
  if (source.tool && sink.file !== undefined) return { lane: 'tool', tool: source.tool, file: sink.file };
  if (sink.tool && source.file !== undefined) return { lane: 'tool', tool: sink.tool, file: source.file };
  if (source.ranges && sink.ranges) return { lane: 'ranges', read: source.ranges, write: sink.ranges };
  if (source.stream && sink.stream) return { lane: 'stream', read: source.stream, write: sink.stream };
  throw new CisternError(
    'TRANSFER_NO_LANE',
    `moving ${source.name} to ${sink.name}: the source offers ${offers(source)}, the destination takes ${offers(sink)}`,
  );
}

const offers = (end: Source | Sink): string =>
  (['file', 'tool', 'ranges', 'stream'] as const).filter(lane => end[lane] !== undefined).join(' and ') || 'nothing';
