/**
 * Perplexity of a model on a text by weight format, beside the same model in float32: what rounding the weights (and the
 * activations, which block formats take as 8-bit integers) costs. Prints a Markdown table; docs/kernels.md has the demo
 * model's. Windows of consecutive tokens; the first token of a window is not predicted.
 *
 *     node bench/perplexity.mjs [--model FOLDER] [--text FILE] [--window 512] [--formats q8_0,q4_k]
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadModel } from '../dist/index.js';
import { convertToGguf } from '../dist/model/gguf/convert.js';
import { openModel } from '../dist/model/open-model.js';
import { QUANTIZE_FORMATS } from '../dist/options/quantize-formats.js';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values: args } = parseArgs({
  options: {
    model: { type: 'string', default: path.join(root, 'models/demo') },
    text: { type: 'string', default: path.join(root, 'test/golden/fixtures/demo-held-out.txt') },
    window: { type: 'string', default: '512' },
    formats: { type: 'string', default: ['bf16', 'f16', ...QUANTIZE_FORMATS].join(',') },
  },
});
const window = Number(args.window);
const folder = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-perplexity-'));

/** Windows of token ids. */
function windows() {
  const ids = openModel(args.model).tokenizer.encode(readFileSync(args.text, 'utf8'));
  const parts = [];
  for (let at = 0; at < ids.length; at += window) parts.push(ids.slice(at, at + window));
  return parts.filter((part) => part.length > 1);
}

/**
 * Float formats are read from a converted file, the others are quantised at load.
 * @param {string} format
 */
function loadOptions(format) {
  const common = { maxContext: window + 1, maxSequences: 8, kvTokens: 8 * (window + 32) };
  if (!['f32', 'f16', 'bf16'].includes(format)) {
    return { ...common, model: args.model, quantize: /** @type {'q8_0'} */ (format) };
  }
  const file = path.join(folder, `${format}.gguf`);
  convertToGguf(openModel(args.model), file, { dtype: /** @type {'f32'} */ (format) });
  return { ...common, model: file };
}

/**
 * @param {string} format
 * @param {number[][]} parts
 */
async function evaluate(format, parts) {
  const model = await loadModel(loadOptions(format));
  try {
    const request = { maxTokens: 1, temperature: 0, ignoreEos: true, promptLogprobs: 0 };
    const results = await Promise.all(parts.map((inputIds) => model.generate({ inputIds }, request).result));
    const logprobs = results.flatMap((result) => result.promptLogprobs ?? []);
    const loss = -logprobs.reduce((sum, { logprob }) => sum + logprob, 0) / logprobs.length;
    const weightBytes = model.info.memory
      .filter(({ kind }) => kind !== 'kv')
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    return { tokens: logprobs.length, loss, weightBytes };
  } finally {
    await model.dispose();
  }
}

const parts = windows();
const exact = await evaluate('f32', parts);
console.log(`${parts.length} windows of up to ${window} tokens, ${exact.tokens} predicted`);
console.log('| format | weights | loss (nats/token) | perplexity | against f32 |');
console.log('|---|---|---|---|---|');
for (const format of ['f32', ...args.formats.split(',')]) {
  const { loss, weightBytes } = format === 'f32' ? exact : await evaluate(format, parts);
  const change = `${(100 * (Math.exp(loss - exact.loss) - 1)).toFixed(3)}%`;
  const cells = [
    format,
    `${(weightBytes / 1e6).toFixed(2)} MB`,
    loss.toFixed(6),
    Math.exp(loss).toFixed(6),
    change,
  ];
  console.log(`| ${cells.join(' | ')} |`);
}
rmSync(folder, { recursive: true });
