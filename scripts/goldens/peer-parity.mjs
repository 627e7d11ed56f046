/**
 * Greedy tokens of nearmoe and of node-llama-cpp on the same GGUF files (scripts/goldens/peer_models.py makes them), beside
 * those that transformers computed from the unquantised weights. Prints a Markdown table; its outcome is recorded in
 * test/fixtures/gguf/README.md. node-llama-cpp is no dependency; install it anywhere and name its folder:
 *
 *     node scripts/goldens/peer-parity.mjs MODELS_FOLDER --peer FOLDER_WITH_NODE_MODULES
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');
const { values, positionals } = parseArgs({ allowPositionals: true, options: { peer: { type: 'string' } } });
const [folder] = positionals;
if (folder === undefined || values.peer === undefined) {
  console.error('usage: node scripts/goldens/peer-parity.mjs MODELS_FOLDER --peer FOLDER_WITH_NODE_MODULES');
  process.exit(2);
}

/** @typedef {{ inputIds: number[], greedyIds: number[], smallestGap: number }} Prompt */

/** @param {string} model @param {Prompt} prompt @returns {number[]} */
function ourTokens(model, prompt) {
  const output = execFileSync(
    process.execPath,
    [
      ...[path.join(root, 'infer.js'), '--model', model, '--input-ids', prompt.inputIds.join(',')],
      ...['--max-tokens', `${prompt.greedyIds.length}`, '--temperature', '0', '--ignore-eos', '--json'],
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  return JSON.parse(output).tokenIds;
}

/** @param {any} llama @param {string} modelPath @param {Prompt[]} prompts @returns {Promise<number[][]>} */
async function peerTokens(llama, modelPath, prompts) {
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({
    contextSize: 256,
    batchSize: 256,
    threads: 2,
    flashAttention: false,
  });
  const sequence = context.getSequence();
  const all = [];
  for (const { inputIds, greedyIds } of prompts) {
    await sequence.clearHistory();
    const tokens = [];
    for await (const token of sequence.evaluate(inputIds, { temperature: 0, yieldEogToken: true })) {
      tokens.push(token);
      if (tokens.length === greedyIds.length) break;
    }
    all.push(tokens);
  }
  await context.dispose();
  await model.dispose();
  return all;
}

/** "all N" or where the two part. @param {number[]} a @param {number[]} b */
function compare(a, b) {
  if (a.length === 0 || b.length === 0) return 'not run';
  const index = a.findIndex((token, i) => token !== b[i]);
  return index < 0 ? `all ${a.length}` : `first ${index}`;
}

const peerModule = createRequire(path.join(path.resolve(values.peer), 'noop.js')).resolve('node-llama-cpp');
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(peerModule).href);
const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error });
console.log(
  '| file | prompt | smallest gap | nearmoe = node-llama-cpp | nearmoe = transformers | node-llama-cpp = transformers |',
);
console.log('| --- | --- | --- | --- | --- | --- |');
for (const file of readdirSync(folder)
  .filter((name) => name.endsWith('.gguf'))
  .sort()) {
  const model = path.join(folder, file);
  const expected = path.join(folder, file.replace(/-[^-]+\.gguf$/, '.json'));
  const { prompts } = /** @type {{ prompts: Prompt[] }} */ (JSON.parse(readFileSync(expected, 'utf8')));
  const peers = await peerTokens(llama, model, prompts).catch((/** @type {Error} */ error) => {
    console.log(`| ${file} | | | node-llama-cpp: ${error.message} | | |`);
    return [];
  });
  prompts.forEach((prompt, i) => {
    const ours = ourTokens(model, prompt);
    const peer = peers[i] ?? [];
    const cells = [
      ...[file, `${prompt.inputIds.length} tokens`, prompt.smallestGap.toExponential(1)],
      ...[compare(ours, peer), compare(ours, prompt.greedyIds), compare(peer, prompt.greedyIds)],
    ];
    console.log(`| ${cells.join(' | ')} |`);
  });
}
await llama.dispose();
