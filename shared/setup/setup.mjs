// node shared/setup/setup.mjs WHAT: brings npm packages and system programs that WHAT needs, and says nothing where all is there.
// Plain JavaScript without packages: it runs on whatever node came with npm (20 or newer), before anything is installed.
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setUpPrograms } from './debian.mjs';
import { NEEDS } from './needs.mjs';
import { setUpNpm } from './npm.mjs';

const need = NEEDS[process.argv[2]];
if (!need) {
  console.error(`usage: node shared/setup/setup.mjs ${Object.keys(NEEDS).join('|')}`);
  process.exit(2);
}
try {
  setUpNpm(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), need.dev);
  setUpPrograms(need);
} catch (error) {
  console.error(`cistern set-up: ${error.message}`);
  process.exit(1);
}
