/**
 * What batching and the prefix cache give, each against a sequential run in the same process: decode tokens/s of
 * several requests at once over one after the other, and the time to first token of a prompt that was computed before
 * over that of a new one of the same length.
 *
 *     node bench/batching.mjs [--model FOLDER | --model synthetic:olmoe-1b-7b:q4_0] [--concurrent 8]
 *                             [--prompt-tokens 2000] [--gen-tokens 64] [--repetitions 3] [--json]
 *
 * Loads the package as built (dist/). Prompts are random ids, so that no two share a beginning unless meant to.
 */
import { parseArgs } from 'node:util';

/** @type {typeof import('../src/index.js')} */
const { loadModel } = await import(new URL('../dist/index.js', import.meta.url).href);

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: new URL('../models/demo', import.meta.url).pathname },
    concurrent: { type: 'string', default: '8' },
    'prompt-tokens': { type: 'string', default: '2000' },
    'gen-tokens': { type: 'string', default: '64' },
    repetitions: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
  },
});
const concurrent = Number(values.concurrent);
const genTokens = Number(values['gen-tokens']);
const repetitions = Number(values.repetitions);
/** Short prompts, so that the decode batches measure decode. */
const SHORT_PROMPT = 16;
const VOCABULARY = 2000;

let seed = 1;
/** @param {number} length */
function randomPrompt(length) {
  return {
    inputIds: Array.from({ length }, () => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return 3 + (seed % (VOCABULARY - 3));
    }),
  };
}

/** @param {readonly number[]} numbers */
function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}

const model = await loadModel({
  model: values.model,
  kvTokens: Math.max(8192, 4 * Number(values['prompt-tokens'])),
  maxSequences: Math.max(16, concurrent),
});
const promptTokens = Math.min(Number(values['prompt-tokens']), model.info.maxContext - 2);
const greedy = { temperature: 0, ignoreEos: true, maxTokens: genTokens };

/** Tokens per second between the first token of the last request to start and the end. */
async function decodeRate() {
  const prompts = Array.from({ length: concurrent }, () => randomPrompt(SHORT_PROMPT));
  let sequentialMs = 0;
  for (const prompt of prompts)
    sequentialMs += (await model.generate(prompt, greedy).result).timings.decodeMs;
  const startMs = performance.now();
  const results = await Promise.all(
    Array.from({ length: concurrent }, () => model.generate(randomPrompt(SHORT_PROMPT), greedy).result),
  );
  const firstMs = Math.max(...results.map(({ timings }) => timings.timeToFirstTokenMs));
  const togetherMs = performance.now() - startMs - firstMs;
  const tokens = concurrent * (genTokens - 1);
  const steps = Math.max(...results.map(({ devices }) => devices.steps));
  return {
    sequential: (1e3 * tokens) / sequentialMs,
    together: (1e3 * tokens) / togetherMs,
    stepMs: togetherMs / steps,
    experts: (results[0]?.experts.activated ?? 0) / steps,
  };
}

async function firstTokenMs() {
  const prompt = randomPrompt(promptTokens);
  const options = { ...greedy, maxTokens: 1 };
  const fresh = await model.generate(prompt, options).result;
  const again = await model.generate(prompt, options).result;
  if (fresh.tokenIds[0] !== again.tokenIds[0]) throw new Error('the cached prompt gave another token');
  return {
    fresh: fresh.timings.timeToFirstTokenMs,
    cached: again.timings.timeToFirstTokenMs,
    cachedTokens: again.usage.cachedPromptTokens,
  };
}

await decodeRate();
await firstTokenMs();
const decode = [];
const first = [];
for (let run = 0; run < repetitions; run++) {
  decode.push(await decodeRate());
  first.push(await firstTokenMs());
}
await model.dispose();
const report = {
  model: values.model,
  concurrent,
  promptTokens,
  sequentialTokensPerSecond: median(decode.map(({ sequential }) => sequential)),
  togetherTokensPerSecond: median(decode.map(({ together }) => together)),
  decodeGain: median(decode.map(({ sequential, together }) => together / sequential)),
  stepMs: median(decode.map(({ stepMs }) => stepMs)),
  expertsPerStep: median(decode.map(({ experts }) => experts)),
  freshFirstTokenMs: median(first.map(({ fresh }) => fresh)),
  cachedFirstTokenMs: median(first.map(({ cached }) => cached)),
  firstTokenGain: median(first.map(({ fresh, cached }) => fresh / cached)),
  cachedTokens: median(first.map(({ cachedTokens }) => cachedTokens)),
};
if (values.json) console.log(JSON.stringify(report));
else
  console.log(
    [
      `${report.model}: medians of ${repetitions}`,
      `decode   one after the other ${report.sequentialTokensPerSecond.toFixed(1)} tokens/s, ` +
        `${concurrent} at once ${report.togetherTokensPerSecond.toFixed(1)} (${report.decodeGain.toFixed(2)} x), ` +
        `${report.stepMs.toFixed(2)} ms and ${report.expertsPerStep.toFixed(0)} experts a step`,
      `first token of ${report.promptTokens} tokens: new ${report.freshFirstTokenMs.toFixed(1)} ms, ` +
        `again ${report.cachedFirstTokenMs.toFixed(2)} ms (${report.firstTokenGain.toFixed(1)} x, ` +
        `${report.cachedTokens} tokens from the cache)`,
    ].join('\n'),
  );
