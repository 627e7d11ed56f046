/**
 * nearmoe beside node-llama-cpp on the same GGUF file, taking turns in two processes that stay loaded, with the same
 * tokens, threads and clock: prefill ends with the first token, decode is the time between first and last token.
 *
 *     node bench/peers.mjs MODEL.gguf --peer FOLDER [--install] [--repetitions 3] [--prompt-tokens 512]
 *                          [--gen-tokens 128] [--threads 2] [--json]
 *
 * FOLDER lies outside this repository; --install puts node-llama-cpp there first (npm, about 700 MB). It is no
 * dependency of nearmoe. bench/random-gguf.mjs writes a file of real shapes.
 */
import { execFileSync, fork } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const PEER = 'node-llama-cpp@3.22';
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    peer: { type: 'string' },
    install: { type: 'boolean', default: false },
    repetitions: { type: 'string', default: '3' },
    'prompt-tokens': { type: 'string', default: '512' },
    'gen-tokens': { type: 'string', default: '128' },
    threads: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});
const [model] = positionals;
if (model === undefined || values.peer === undefined) {
  console.error('usage: node bench/peers.mjs MODEL.gguf --peer FOLDER [--install]');
  process.exit(2);
}
const peerFolder = path.resolve(values.peer);
if (values.install) install(peerFolder);
const peerPackage = path.join(peerFolder, 'node_modules/node-llama-cpp');
if (!existsSync(peerPackage)) {
  console.error(`${peerPackage} is not there: add --install`);
  process.exit(2);
}

/** @typedef {{ prefillTokensPerSecond: number, decodeTokensPerSecond: number }} Rates */

const request = {
  model: path.resolve(model),
  peerPackage,
  promptTokens: Number(values['prompt-tokens']),
  genTokens: Number(values['gen-tokens']),
  threads: Number(values.threads),
};
const names = ['nearmoe', 'node-llama-cpp'];
const runners = names.map((name) => fork(path.join(root, 'bench/peers', `${name}.mjs`)));
/** @type {number[]} */
const loadMs = [];
for (const runner of runners) loadMs.push((await ask(runner, { type: 'load', request })).loadMs);
/** @type {Rates[][]} */
const rates = names.map(() => []);
// The first round warms up; the order turns in every round, so that neither always runs behind the other.
for (let round = 0; round <= Number(values.repetitions); round++) {
  for (const index of round % 2 === 0 ? [0, 1] : [1, 0]) {
    const runner = runners[index];
    if (runner === undefined) continue;
    const result = await ask(runner, { type: 'run', seed: round });
    if (round > 0) rates[index]?.push(result);
  }
}
for (const runner of runners) runner.disconnect();
report();

/** @param {import('node:child_process').ChildProcess} runner @param {object} message @returns {Promise<any>} */
function ask(runner, message) {
  return new Promise((resolve, reject) => {
    const onExit = (/** @type {number | null} */ code) =>
      reject(new Error(`a runner ended with status ${code}`));
    runner.once('exit', onExit);
    runner.once('message', (/** @type {any} */ answer) => {
      runner.off('exit', onExit);
      if (answer.error) reject(new Error(answer.error));
      else resolve(answer);
    });
    runner.send(message);
  });
}

function report() {
  const kinds = /** @type {const} */ (['prefillTokensPerSecond', 'decodeTokensPerSecond']);
  const sides = names.map((name, index) => ({
    name,
    loadMs: loadMs[index],
    ...Object.fromEntries(kinds.map((kind) => [kind, spread((rates[index] ?? []).map((run) => run[kind]))])),
  }));
  const ratios = Object.fromEntries(
    kinds.map((kind) => [
      kind,
      // Round by round, since both sides of a round saw the same minute.
      spread((rates[0] ?? []).map((run, round) => run[kind] / (rates[1]?.[round]?.[kind] ?? Number.NaN))),
    ]),
  );
  if (values.json) {
    console.log(JSON.stringify({ ...request, peerPackage: PEER, sides, ratios }));
    return;
  }
  for (const kind of kinds) {
    for (const [index, name] of names.entries())
      line(
        kind,
        name,
        (rates[index] ?? []).map((run) => run[kind]),
      );
    const { median, min, max } = ratios[kind] ?? spread([]);
    console.log(
      `${kind.padEnd(24)}${'ratio'.padEnd(16)}${[median, min, max].map((x) => x.toFixed(2).padStart(9)).join('')}`,
    );
  }
}

/** @param {string} kind @param {string} name @param {number[]} runs */
function line(kind, name, runs) {
  const { median, min, max } = spread(runs);
  console.log(
    `${kind.padEnd(24)}${name.padEnd(16)}${[median, min, max].map((x) => x.toFixed(1).padStart(9)).join('')}`,
  );
}

/** @param {number[]} runs */
function spread(runs) {
  const sorted = [...runs].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const median = ((sorted[Math.ceil(middle) - 1] ?? 0) + (sorted[Math.floor(middle)] ?? 0)) / 2;
  return { median, min: sorted[0] ?? 0, max: sorted.at(-1) ?? 0 };
}

/** @param {string} folder */
function install(folder) {
  if (!path.relative(root, folder).startsWith('..')) {
    console.error(`Expected --peer to be a folder outside ${root}, got ${folder}`);
    process.exit(2);
  }
  mkdirSync(folder, { recursive: true });
  execFileSync('npm', ['install', '--prefix', folder, '--no-audit', '--no-fund', PEER], { stdio: 'inherit' });
}
