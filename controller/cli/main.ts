import { processIo } from './io.ts';
import { run } from './program.ts';

// `cistern image list | head -1`: who reads has seen enough
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

process.exitCode = await run(process.argv.slice(2), processIo());
