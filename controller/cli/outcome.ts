import { TransferSummary } from '../../shared/commands/refs.ts';
import { CisternError, fromProblem } from '../../shared/errors.ts';
import type { Operation } from '../../shared/model.ts';
import type { Call } from './command.ts';
import { printError } from './output.ts';
import { formatPairs } from './table.ts';
import { formatBytes, formatDuration, formatSpan } from './units.ts';
import { isFinal } from './watch.ts';

/** How many ids of one kind are told; a thousand clones are told by their number. */
const SHOWN = 5;

/** Says how an operation ended and what came out of it; returns the exit code. */
export function reportOutcome(call: Call, operation: Operation): number {
  const { id, kind, state } = operation;
  if (!isFinal(operation)) {
    call.out.note(`${kind} ${id} goes on. Follow it again with: cistern operation wait ${id}`);
    return 130;
  }
  if (state === 'succeeded' || call.out.json) call.out.say(describeOutcome(operation), operation);
  if (state === 'succeeded') return 0;
  if (state === 'cancelled') {
    call.out.note(`${kind} ${id} was cancelled; what it had begun is undone.`);
    return 130;
  }
  printError(
    call.io,
    operation.error ? fromProblem(operation.error) : new CisternError('INTERNAL', `${kind} ${id} failed and does not say why`),
  );
  if (operation.error?.retryable && !isUpload(operation)) call.out.note(`Then: cistern operation retry ${id}`);
  return 1;
}

/** An upload cannot be retried: its bytes came from a command that has ended. */
const isUpload = ({ input: { source } }: Operation): boolean =>
  typeof source === 'object' && source !== null && 'type' in source && source.type === 'upload';

/** An operation that has ended, for people: how long it took, what it worked on, what it gave and how bytes went. */
export function describeOutcome(operation: Operation): string {
  const { kind, state, createdAt, finishedAt } = operation;
  const seconds = finishedAt ? (Date.parse(finishedAt) - Date.parse(createdAt)) / 1000 : 0;
  const pairs: [string, string][] = [...describeResources(operation), ...scalars(operation.output ?? {})];
  for (const transfer of transfersOf(operation)) pairs.push(['transfer', describeTransfer(transfer)]);
  const name = typeof operation.input.name === 'string' ? ` ${operation.input.name}` : '';
  const head = `${kind}${name} ${state} in ${formatDuration(seconds)}`;
  return [head, ...(pairs.length > 0 ? formatPairs(pairs).split('\n') : []).map(line => `  ${line}`)].join('\n');
}

function describeResources({ resources, output }: Operation): [string, string][] {
  // an output that names its things says more than their ids
  const unnamed = resources.filter(({ kind }) => output?.[`${kind}s`] === undefined);
  const kinds = Map.groupBy(unnamed, resource => resource.kind);
  return [...kinds].map(([kind, all]) => {
    const ids = all.slice(0, SHOWN).map(resource => resource.id);
    return [kind, `${ids.join(' ')}${all.length > SHOWN ? ` and ${all.length - SHOWN} more` : ''}`];
  });
}

const BYTES = /^(size|virtualSize|allocated|freed|bytes|moved|total|available)$/;

/** What an output or input holds, for people: sizes with units, lists by their first names. Ids of resources are told elsewhere. */
export function scalars(values: Record<string, unknown>): [string, string][] {
  return Object.entries(values).flatMap(([key, value]): [string, string][] => {
    const text = key === 'transfers' || (/Id$/.test(key) && typeof value === 'string') ? '' : describeValue(key, value);
    return text === '' ? [] : [[key.replace(/[A-Z]/g, c => ` ${c.toLowerCase()}`), text]];
  });
}

function describeValue(key: string, value: unknown): string {
  if (typeof value === 'number') return BYTES.test(key) ? formatBytes(value) : String(value);
  if (typeof value === 'string' || typeof value === 'boolean') return String(value);
  if (Array.isArray(value)) {
    const shown = value
      .slice(0, SHOWN)
      .map((item: unknown) => (isNamed(item) ? `${item.name} (${item.id})` : describeValue('', item)));
    return shown.join(', ') + (value.length > SHOWN ? ` and ${value.length - SHOWN} more` : '');
  }
  if (typeof value !== 'object' || value === null) return '';
  return scalars(value as Record<string, unknown>)
    .map(([label, text]) => `${label} ${text}`)
    .join(', ');
}

const isNamed = (item: unknown): item is { id: string; name: string } =>
  typeof item === 'object' && item !== null && 'name' in item && 'id' in item;

/** Every transfer that an operation tells of, wherever its output or its steps' results hold it. */
export function transfersOf({ output, steps }: Operation): TransferSummary[] {
  const told = findTransfers(output, 0);
  return told.length > 0 ? told : steps.flatMap(step => findTransfers(step.result, 0));
}

function findTransfers(value: unknown, depth: number): TransferSummary[] {
  if (typeof value !== 'object' || value === null || depth > 6) return [];
  const parsed = TransferSummary.safeParse(value);
  return parsed.success ? [parsed.data] : Object.values(value).flatMap(inner => findTransfers(inner, depth + 1));
}

/** One transfer in a line: lane, streams, parts, bytes and rate; what an earlier attempt had brought, and retries, where there were any. */
export function describeTransfer(transfer: TransferSummary): string {
  const { lane, streams, parts, zeroParts, zeroBytes, bytes, resumed, moved, retries, seconds } = transfer;
  const took = seconds < 10 ? `${seconds.toFixed(1)}s` : formatSpan(seconds);
  const rate = seconds > 0 ? `, ${formatBytes(bytes / seconds)}/s` : '';
  const zeros = zeroParts > 0 ? ` (${zeroParts} of zeros, ${formatBytes(zeroBytes)})` : '';
  const before = resumed > 0 ? `, ${formatBytes(resumed)} were there from before` : '';
  const again = retries > 0 ? `, ${count(retries, 'retry', 'retries')}` : '';
  return `${lane}, ${count(streams, 'stream')}, ${count(parts, 'part')}${zeros}${before}, ${formatBytes(moved)} of ${formatBytes(bytes)} moved in ${took}${rate}${again}`;
}

const count = (n: number, one: string, more = `${one}s`): string => `${n} ${n === 1 ? one : more}`;
