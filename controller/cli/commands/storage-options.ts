import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import type { Capacity, PoolCapacity } from '../../../shared/model.ts';
import { parseFileSetting, parseSetting, type Settings } from '../settings.ts';
import { formatBytes } from '../units.ts';

/** Adds `--type`, `--set` and `--set-file`, with which every storage is described. */
export const withSettings = (command: Command, types: string): Command =>
  command
    .addOption(new Option('--type <type>', `driver: ${types}`).makeOptionMandatory())
    .option(
      '--set <key=value>',
      'a setting of the driver; may be repeated. Numbers, true, false and [arrays] are taken as such',
      parseSetting,
    )
    .option(
      '--set-file <key=path>',
      'a setting whose value is in a file: keys, passwords, host keys; may be repeated',
      parseFileSetting,
    );

/** Settings of `--set` and `--set-file` together. */
export const settingsOf = ({ set, setFile }: { set?: Settings; setFile?: Settings }): Settings => ({ ...set, ...setFile });

/** Collects a repeatable option into an array; one value may not hold a comma-separated list, which no name can. */
export function collect(value: string, before: string[] = []): string[] {
  if (value.includes(',')) throw new InvalidArgumentError('one at a time: repeat the option.');
  return [...before, value];
}

/** Free space in words: `3.2 GiB free of 10.0 GiB`. */
export const describeCapacity = (capacity: Capacity | null): string =>
  capacity ? `${formatBytes(capacity.available)} free of ${formatBytes(capacity.total)}` : 'not known';

/** How full it is: `68%`. */
export const usedShare = (capacity: Capacity | null): string =>
  capacity && capacity.total > 0 ? `${Math.round((1 - capacity.available / capacity.total) * 100)}%` : '-';

/** The book-keeping of a pool as pairs. */
export const capacityPairs = (capacity: PoolCapacity | null): [string, string | undefined][] => [
  [
    'capacity',
    `${describeCapacity(capacity)}${{ ok: '', warn: ' (getting full)', stop: ' (full: no new work)' }[capacity?.level ?? 'ok']}`,
  ],
  [
    'provisioned',
    capacity
      ? `${formatBytes(capacity.provisioned)} of ${formatBytes(capacity.total * capacity.overcommit)} (over-commit ${capacity.overcommit})`
      : undefined,
  ],
  ['reserved', capacity ? formatBytes(capacity.reserved) : undefined],
  ['volumes', capacity ? formatBytes(capacity.volumes) : undefined],
  ['image cache', capacity ? formatBytes(capacity.cache) : undefined],
  ['trash', capacity ? formatBytes(capacity.trash) : undefined],
];

/** A driver's configuration as pairs; secrets never come out of the API. */
export const configPairs = (config: Record<string, unknown>): [string, string][] =>
  Object.entries(config).map(([key, value]) => [`  ${key}`, typeof value === 'string' ? value : JSON.stringify(value)]);
