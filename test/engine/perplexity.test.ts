/**
 * Log-probabilities of prompt tokens: those of transformers' logits on a golden checkpoint, the same alone and in
 * batches; and with them the demo model's loss on held-out text, which transformers measured too
 * (scripts/demo-model/evaluate.py), in float32 and quantised. `node bench/perplexity.mjs` prints all formats.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { LoadOptions } from '../../src/index.js';
import { openModel } from '../../src/model/open-model.js';
import { goldenFolder, goldenPrompts, nearmoe } from './built.js';

async function score(options: LoadOptions, prompts: number[][], promptLogprobs = 0) {
  const model = await nearmoe.loadModel({ units: 2, pinThreads: false, ...options });
  try {
    const request = { maxTokens: 1, temperature: 0, ignoreEos: true, promptLogprobs };
    const running = prompts.map((inputIds) => model.generate({ inputIds }, request).result);
    return (await Promise.all(running)).map((result) => result.promptLogprobs ?? []);
  } finally {
    await model.dispose();
  }
}

describe('promptLogprobs', () => {
  const model = goldenFolder('qwen3_moe');
  const { vocabSize } = JSON.parse(readFileSync(`${model}/golden.json`, 'utf8')) as { vocabSize: number };
  const bytes = readFileSync(`${model}/logits.f32`);
  const logits = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const prompts = goldenPrompts('qwen3_moe');
  const whole = prompts.map(({ inputIds, greedyIds }) => [...inputIds, ...greedyIds]);

  /** Of the greedy tokens, by transformers. */
  function expected({ greedyIds, firstRow }: (typeof prompts)[number] & { firstRow?: number }): number[] {
    return greedyIds.map((id, i) => {
      const at = ((firstRow ?? 0) + i) * vocabSize;
      const row = logits.subarray(at, at + vocabSize);
      const largest = row.reduce((most, value) => Math.max(most, value), -Infinity);
      const sum = row.reduce((total, value) => total + Math.exp(value - largest), 0);
      return (row[id] ?? 0) - largest - Math.log(sum);
    });
  }

  it('are those of transformers, token by token', async () => {
    const results = await score({ model }, whole, 2);
    results.forEach((result, index) => {
      const prompt = prompts[index];
      const ids = whole[index] ?? [];
      if (prompt === undefined) throw new Error('a prompt too many');
      expect(result.map(({ tokenId }) => tokenId)).toEqual(ids.slice(1));
      const tail = result.slice(prompt.inputIds.length - 1);
      expected(prompt).forEach((logprob, i) => {
        expect(tail[i]?.logprob).toBeCloseTo(logprob, 3);
        // What was generated greedily is the likeliest token of its place.
        expect(tail[i]?.top[0]?.tokenId).toBe(tail[i]?.tokenId);
        expect(tail[i]?.top.length).toBe(2);
      });
    });
  });

  it('do not depend on chunks and batch', async () => {
    const longest = whole.reduce(
      (most, ids, index) => (ids.length > (whole[most]?.length ?? 0) ? index : most),
      0,
    );
    const [reference] = await score({ model, maxSequences: 1 }, [whole[longest] ?? []]);
    expect(reference?.length).toBeGreaterThan(40);
    for (const options of [{ maxBatchTokens: 1 }, { maxBatchTokens: 7 }, { maxSequences: 3 }]) {
      const results = await score({ model, ...options }, whole);
      expect(results[longest], JSON.stringify(options)).toEqual(reference);
      results.forEach((result, index) => {
        expect(result.length).toBe((whole[index]?.length ?? 0) - 1);
      });
    }
  });

  it('leave the answer and the log-probabilities of generated tokens as they were', async () => {
    const loaded = await nearmoe.loadModel({ model, units: 2, pinThreads: false });
    const [first] = prompts;
    if (first === undefined) throw new Error('no prompt');
    const request = { temperature: 0, maxTokens: 24, ignoreEos: true, logprobs: 0 } as const;
    const plain = await loaded.generate({ inputIds: first.inputIds }, request).result;
    const scored = await loaded.generate({ inputIds: first.inputIds }, { ...request, promptLogprobs: 0 })
      .result;
    expect(plain.promptLogprobs).toBeUndefined();
    expect(scored.tokenIds).toEqual(first.greedyIds);
    expect(scored.logprobs).toEqual(plain.logprobs);
    expect(scored.usage.cachedPromptTokens).toBe(0);
    await loaded.dispose();
  });
});

describe('the demo model on held-out text', () => {
  const fixtures = 'test/golden/fixtures';
  const golden = JSON.parse(readFileSync(`${fixtures}/demo-held-out.json`, 'utf8')) as {
    window: number;
    predictedTokens: number;
    lossNats: number;
  };
  const ids = openModel('models/demo').tokenizer.encode(
    readFileSync(`${fixtures}/demo-held-out.txt`, 'utf8'),
  );
  const windows = Array.from({ length: Math.ceil(ids.length / golden.window) }, (_, i) =>
    ids.slice(i * golden.window, (i + 1) * golden.window),
  );

  it.each([
    ['as transformers measured it', undefined, 1e-5],
    ['within 0.1% in q8_0', 'q8_0', 1e-3],
    ['within 2% in q4_k', 'q4_k', 2e-2],
  ] as const)('has its perplexity %s', { timeout: 120_000 }, async (_, quantize, bound) => {
    const options = { model: 'models/demo', maxContext: golden.window + 1, maxSequences: 8, quantize };
    const logprobs = (await score(options, windows)).flat();
    expect(logprobs.length).toBe(golden.predictedTokens);
    const loss = -logprobs.reduce((sum, { logprob }) => sum + logprob, 0) / logprobs.length;
    expect(Math.abs(Math.exp(loss - golden.lossNats) - 1)).toBeLessThan(bound);
  });
});
