/** node-llama-cpp's side of bench/peers.mjs, from the folder it was installed into. */
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { takeTurns } from './turns.mjs';

takeTurns(async ({ model: modelPath, peerPackage, threads, promptTokens, genTokens }) => {
  const { getLlama } = await import(pathToFileURL(path.join(peerPackage, 'dist/index.js')).href);
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threads });
  const model = await llama.loadModel({ modelPath });
  const contextSize = promptTokens + genTokens + 8;
  const context = await model.createContext({ contextSize, batchSize: 512, threads });
  const sequence = context.getSequence();
  return {
    vocabSize: model.fileInfo.metadata.tokenizer.ggml.tokens.length,
    generate: async (inputIds) => {
      await sequence.clearHistory();
      const started = performance.now();
      const moments = [];
      for await (const _token of sequence.evaluate(inputIds, { temperature: 0, yieldEogToken: true })) {
        if (moments.push(performance.now()) === genTokens) break;
      }
      const [first = 0, last = 0] = [moments[0], moments.at(-1)];
      return { firstTokenMs: first - started, decodeMs: last - first, tokens: moments.length };
    },
  };
});
