import type { Command } from 'commander';
import type { CacheEntry } from '../../../shared/model.ts';
import { leaf, type Runtime } from '../command.ts';
import { listFor, namesOf, withLimit } from '../lists.ts';
import { runOperation, withWait } from '../operation.ts';
import { formatAge, formatBytes } from '../units.ts';

/** `cistern image cache`: read-only copies of images on primary storages, which volumes are clones of. */
export function addImageCacheCommands(runtime: Runtime, image: Command): void {
  const cache = image.command('cache').description('copies of images on primary storages, which volumes stand on');
  withLimit(
    leaf(runtime, cache, {
      usage: 'list',
      summary: 'List cached images',
      examples: ['image cache list', 'image cache list --primary-storage fast'],
      action: async call => {
        const { image: only, primaryStorage } = call.options as { image?: string; primaryStorage?: string };
        const entries = await listFor(call, page => call.client.listCache({ query: { ...page, image: only, primaryStorage } }));
        const nameOf = await namesOf(call, 'image', 'primary-storage', 'host');
        call.out.list<CacheEntry>(
          [
            { title: 'IMAGE', value: e => nameOf(e.imageId) },
            { title: 'PRIMARY STORAGE', value: e => nameOf(e.primaryStorageId) },
            { title: 'HOST', value: e => nameOf(e.hostId) },
            { title: 'STATUS', value: e => e.status },
            { title: 'SIZE', value: e => formatBytes(e.size), align: 'right' },
            { title: 'VOLUMES', value: e => String(e.volumes), align: 'right', yields: 1 },
            { title: 'USED', value: e => formatAge(e.lastUsedAt), align: 'right', yields: 2 },
          ],
          entries,
        );
      },
    })
      .option('--image <image>', 'only of this image')
      .option('--primary-storage <primary-storage>', 'only on this primary storage'),
  );
  const onPool = (command: Command): Command =>
    withWait(
      command
        .requiredOption('--primary-storage <primary-storage>', 'where')
        .option('--host <host>', 'for local pools: only on this host'),
    );
  const bodyOf = (image: string, options: { primaryStorage?: string; host?: string }) => ({
    image,
    primaryStorage: options.primaryStorage!,
    host: options.host,
  });
  onPool(
    leaf(runtime, cache, {
      usage: 'add <image>',
      summary: 'Prefetch an image into the cache of a primary storage, before the first volume wants it',
      examples: [
        'image cache add debian12 --primary-storage fast',
        'image cache add debian12 --primary-storage fast --host kvm1',
      ],
      action: call =>
        runOperation(call, options => call.client.addToCache({ body: bodyOf(call.args[0]!, call.options) }, options)),
    }),
  );
  onPool(
    leaf(runtime, cache, {
      usage: 'verify <image>',
      summary: 'Read a cached image from end to end, and compare each part with what was fetched',
      examples: ['image cache verify debian12 --primary-storage fast'],
      action: call =>
        runOperation(call, options => call.client.verifyCache({ body: bodyOf(call.args[0]!, call.options) }, options)),
    }),
  );
  onPool(
    leaf(runtime, cache, {
      usage: 'evict <image>',
      summary: 'Remove an image from a cache; refused while volumes stand on it',
      examples: ['image cache evict debian12 --primary-storage fast'],
      action: call =>
        runOperation(call, options => call.client.evictFromCache({ body: bodyOf(call.args[0]!, call.options) }, options)),
    }),
  );
}
