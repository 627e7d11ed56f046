/**
 * Builds the addon with CMake through cmake-js and copies it to where node-gyp-build looks for it.
 * Called by binding.gyp (`npm ci`, prebuildify) with --copy-to, by scripts/test.mjs with --tests, and by hand
 * as `npm run build:native`. The CMake tree is build-cmake/, since node-gyp owns and empties build/.
 *
 *   --tests        also build the native test executables and the emulated GPU library
 *   --cuda         also build the CUDA library; needs nvcc, takes minutes (`npm run build:cuda`)
 *   --copy-to DIR  where nearmoe.node goes (default build/Release)
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values: args } = parseArgs({
  options: {
    tests: { type: 'boolean', default: false },
    cuda: { type: 'boolean', default: false },
    'copy-to': { type: 'string' },
  },
});

if (!hasCommand('cmake')) {
  fail(
    'CMake was not found. Install it (for example `apt-get install cmake ninja-build g++`), then run `npm ci`.',
  );
}

const load = createRequire(import.meta.url);
/** @type {typeof import('./cmake-js.d.ts')} */
const { BuildSystem } = load('cmake-js');
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
const out = path.join(root, 'build-cmake');
const build = new BuildSystem({
  directory: root,
  out,
  config: 'Release',
  parallel: os.availableParallelism(),
  cMakeOptions: {
    NEARMOE_VERSION: version,
    // A newer compiler's new warnings must not stop a user's install; in a checkout they must.
    NEARMOE_WERROR: existsSync(path.join(root, '.git')) ? 'ON' : 'OFF',
    NEARMOE_TESTS: args.tests ? 'ON' : 'OFF',
    NEARMOE_EMULATED_GPU: args.tests ? 'ON' : 'OFF',
    NEARMOE_CUDA: args.cuda ? 'ON' : 'OFF',
  },
});

try {
  await build.configure();
  await build.build();
} catch (error) {
  fail(`The CMake build of the addon failed: ${error instanceof Error ? error.message : error}`);
}

const target = path.resolve(root, args['copy-to'] ?? 'build/Release');
mkdirSync(target, { recursive: true });
install('nearmoe.node');
if (args.tests) install('libnearmoe_gpu_emulated.so');
if (args.cuda && existsSync(path.join(out, 'Release', 'libnearmoe_cuda.so'))) install('libnearmoe_cuda.so');
else if (args.cuda)
  fail('nvcc was not found: install the CUDA toolkit 13, or set CUDACXX to the path of nvcc.');

/**
 * Renamed into place: a process that has the old file mapped keeps it unharmed.
 * @param {string} name
 */
function install(name) {
  const temporary = path.join(target, `.${name}.${process.pid}.tmp`);
  copyFileSync(path.join(out, 'Release', name), temporary);
  renameSync(temporary, path.join(target, name));
}

/** @param {string} name */
function hasCommand(name) {
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  return folders.some(
    (folder) => existsSync(path.join(folder, name)) || existsSync(path.join(folder, `${name}.exe`)),
  );
}

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(`nearmoe: ${message}`);
  process.exit(1);
}
