/**
 * Greedy tokens of nearmoe and of node-llama-cpp on the same GGUF files (scripts/goldens/peer_models.py makes them), beside
 * those that transformers computed from the unquantised weights; and how far the log-probabilities of the ten likeliest
 * first tokens are from transformers'. Prints a Markdown table; its outcome is recorded in test/fixtures/gguf/README.md. node-llama-cpp is no dependency; install it anywhere and name its folder:
 *
 *     node scripts/goldens/peer-parity.mjs MODELS_FOLDER --peer FOLDER_WITH_NODE_MODULES
 */
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');
const LIKELIEST = 20;
const { values, positionals } = parseArgs({ allowPositionals: true, options: { peer: { type: 'string' } } });
const [folder] = positionals;
if (folder === undefined || values.peer === undefined) {
  console.error('usage: node scripts/goldens/peer-parity.mjs MODELS_FOLDER --peer FOLDER_WITH_NODE_MODULES');
  process.exit(2);
}

/** @typedef {{ inputIds: number[], greedyIds: number[], smallestGap: number, logits?: number[] }} Prompt */
/** @typedef {{ tokens: number[], logprobs: Map<number, number> }} Answer what follows, and the first token's chances */

/** @param {string} model @param {Prompt[]} prompts @returns {Promise<Answer[]>} */
async function ourAnswers(model, prompts) {
  const { loadModel } = await import(pathToFileURL(path.join(root, 'dist/index.js')).href);
  const loaded = await loadModel({ model });
  const answers = [];
  for (const { inputIds, greedyIds } of prompts) {
    const request = { temperature: 0, maxTokens: greedyIds.length, ignoreEos: true, logprobs: LIKELIEST };
    const { tokenIds, logprobs } = await loaded.generate({ inputIds }, request).result;
    /** @type {{ tokenId: number, logprob: number }[]} */
    const top = logprobs[0].top;
    answers.push({
      tokens: tokenIds,
      logprobs: new Map(top.map(({ tokenId, logprob }) => [tokenId, logprob])),
    });
  }
  await loaded.dispose();
  return answers;
}

/** @param {any} llama @param {string} modelPath @param {Prompt[]} prompts @returns {Promise<Answer[]>} */
async function peerAnswers(llama, modelPath, prompts) {
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
    const last = [inputIds.at(-1), { generateNext: { logits: true } }];
    const outputs = await sequence.controlledEvaluate([...inputIds.slice(0, -1), last]);
    const logits = outputs.at(-1).next.logits;
    const logprobs = logSoftmax([...logits.keys()], [...logits.values()]);
    await sequence.clearHistory();
    const tokens = [];
    for await (const token of sequence.evaluate(inputIds, { temperature: 0, yieldEogToken: true })) {
      tokens.push(token);
      if (tokens.length === greedyIds.length) break;
    }
    all.push({ tokens, logprobs });
  }
  await context.dispose();
  await model.dispose();
  return all;
}

/** @param {number[]} ids @param {number[]} logits @returns {Map<number, number>} */
function logSoftmax(ids, logits) {
  const largest = Math.max(...logits);
  const sum = Math.log(logits.reduce((total, x) => total + Math.exp(x - largest), 0));
  return new Map(ids.map((id, i) => [id, (logits[i] ?? Number.NaN) - largest - sum]));
}

/** Largest error of the ten likeliest tokens' log-probabilities. @param {Prompt} prompt @param {Answer | undefined} answer */
function error({ logits = [] }, answer) {
  if (answer === undefined) return 'not run';
  const expected = logSoftmax([...logits.keys()], logits);
  const likeliest = [...expected].sort((a, b) => b[1] - a[1]).slice(0, LIKELIEST / 2);
  const errors = likeliest.map(([id, value]) => Math.abs(value - (answer.logprobs.get(id) ?? Number.NaN)));
  return Math.max(...errors).toExponential(1);
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
  '| file | prompt | smallest gap | nearmoe = node-llama-cpp | nearmoe = transformers | node-llama-cpp = transformers | error of nearmoe | of node-llama-cpp |',
);
console.log('| --- | --- | --- | --- | --- | --- | --- | --- |');
for (const file of readdirSync(folder)
  .filter((name) => name.endsWith('.gguf'))
  .sort()) {
  const model = path.join(folder, file);
  const expected = path.join(folder, file.replace(/-[^-]+\.gguf$/, '.json'));
  const { prompts } = /** @type {{ prompts: Prompt[] }} */ (JSON.parse(readFileSync(expected, 'utf8')));
  const peers = await peerAnswers(llama, model, prompts).catch((/** @type {Error} */ failure) => {
    console.log(`| ${file} | | | node-llama-cpp: ${failure.message} | | | | |`);
    return [];
  });
  const own = await ourAnswers(model, prompts);
  prompts.forEach((prompt, i) => {
    const [ours = [], peer = []] = [own[i]?.tokens, peers[i]?.tokens];
    const cells = [
      ...[file, `${prompt.inputIds.length} tokens`, prompt.smallestGap.toExponential(1)],
      ...[compare(ours, peer), compare(ours, prompt.greedyIds), compare(peer, prompt.greedyIds)],
      ...[error(prompt, own[i]), error(prompt, peers[i])],
    ];
    console.log(`| ${cells.join(' | ')} |`);
  });
}
await llama.dispose();
