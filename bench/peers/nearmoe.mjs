/** nearmoe's side of bench/peers.mjs: one unit for each thread. */
import { loadModel } from '../../dist/index.js';
import { openModel } from '../../dist/model/open-model.js';
import { takeTurns } from './turns.mjs';

takeTurns(async ({ model: path, threads, promptTokens, genTokens }) => {
  const { vocabSize } = openModel(path).spec;
  const model = await loadModel({
    model: path,
    units: threads,
    threadsPerUnit: 1,
    gpu: 'off',
    maxContext: promptTokens + genTokens,
    prefixCache: false, // every prompt is to be computed
  });
  return {
    vocabSize,
    generate: async (inputIds) => {
      const options = { maxTokens: genTokens, temperature: 0, ignoreEos: true };
      const { timings, tokenIds } = await model.generate({ inputIds }, options).result;
      return {
        firstTokenMs: timings.timeToFirstTokenMs,
        decodeMs: timings.decodeMs,
        tokens: tokenIds.length,
      };
    },
  };
});
