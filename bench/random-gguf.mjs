/**
 * Writes a GGUF file with the shapes of a published model and made-up weights, streaming, so that speed can be compared
 * on files that nobody has to download: `node bench/random-gguf.mjs OUT.gguf [--shape olmoe-1b-7b] [--quant q4_0]` after
 * `npm run build:ts`. Shapes: those of `bench --synthetic`; formats: f32, q8_0, q4_0, q4_k_m, mxfp4. Its text is noise.
 * `--layers N` writes the first N layers alone, where memory has no room for two engines with all of them.
 */
import { parseArgs } from 'node:util';
import { FAMILIES } from '../dist/model/families/registry.js';
import { writtenNames } from '../dist/model/gguf/convert-weights.js';
import { specMetadata } from '../dist/model/gguf/spec-metadata.js';
import { tensorBytes, writeGguf } from '../dist/model/gguf/writer.js';
import { openModel } from '../dist/model/open-model.js';

/** @typedef {import('../dist/model/dtypes.js').DTypeName} DTypeName */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shape: { type: 'string', default: 'olmoe-1b-7b' },
    quant: { type: 'string', default: 'q4_0' },
    layers: { type: 'string', default: '1000' },
  },
});
const [out] = positionals;
if (out === undefined) {
  console.error('usage: node bench/random-gguf.mjs OUT.gguf [--shape olmoe-1b-7b] [--quant q4_0]');
  process.exit(2);
}

/** Blocks of a pattern that is repeated, or single floats: primes, so that rows differ. */
const PATTERN_BLOCKS = 4099;
const PATTERN_FLOATS = 65537;
let patterns = 0;
/**
 * Bytes of a block, and what its scales are set to so that weights are small: bytes from an offset on.
 * @type {Partial<Record<DTypeName, { bytes: number, scales: [offset: number, bytes: number[]][] }>>}
 */
const FORMATS = {
  f32: { bytes: 4, scales: [] },
  q4_0: { bytes: 18, scales: [[0, [0x00, 0x1c]]] },
  q8_0: { bytes: 34, scales: [[0, [0x00, 0x0c]]] },
  q4_k: { bytes: 144, scales: [[0, [0x00, 0x0c, 0x00, 0x0c]]] },
  q6_k: { bytes: 210, scales: [[208, [0x50, 0x01]]] },
  mxfp4: { bytes: 17, scales: [[0, [119]]] },
};

const model = openModel(`synthetic:${values.shape}:${values.quant}`);
const spec = { ...model.spec, layers: model.spec.layers.slice(0, Number(values.layers)) };
const gguf = FAMILIES.find(({ modelType }) => modelType === spec.architecture)?.gguf;
if (gguf === undefined) throw new Error(`no GGUF form of ${spec.architecture}`);

if (gguf.layerNames !== undefined)
  throw new Error(`${gguf.architecture}: names by layer are not written here`);

const names = writtenNames(spec, gguf.names);
/** @type {Map<string, { role: string, dtype: DTypeName, matrix: number[], count: number, isStacked: boolean }>} */
const stacks = new Map();
for (const { role, layer, rows, cols, tensor, expert, head } of model.weights) {
  if (layer >= spec.layers.length) continue;
  const pattern = names[role]?.[0];
  if (typeof pattern !== 'string') throw new Error(`no GGUF name for ${role}`);
  const name = pattern.replace('{layer}', `${layer}`);
  const known = stacks.get(name);
  if (known !== undefined) {
    known.count++;
    continue;
  }
  const matrix = rows === 1 && role !== 'router' ? [cols] : [rows, cols];
  const dtype = model.tensors.get(tensor)?.dtype ?? 'f32';
  stacks.set(name, { role, dtype, matrix, count: 1, isStacked: expert >= 0 || head !== undefined });
}
const tensors = [...stacks].map(([name, { role, dtype, matrix, count, isStacked }]) => {
  const shape = isStacked ? [count, ...matrix] : matrix;
  return { name, dtype, shape, pieces: () => pieces(role, { name, dtype, shape }) };
});
const { metadata, ropeTensors } = specMetadata(spec, gguf, out);
if (ropeTensors.length > 0) throw new Error('factors of rotary frequencies are not written here');
metadata.set('general.name', { type: 'string', value: `random ${values.shape}` });
addTokenizer(spec.vocabSize);
for (const _ of writeGguf(out, metadata, tensors));
const sizeBytes = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
console.log(`${out}: ${tensors.length} tensors, ${(sizeBytes / 1e9).toFixed(2)} GB`);

/** @param {number} vocabSize the 256 bytes in the alphabet of byte-level tokenizers, then made-up words */
function addTokenizer(vocabSize) {
  const printable = [
    [33, 126],
    [161, 172],
    [174, 255],
  ];
  const isPrintable = (/** @type {number} */ byte) =>
    printable.some(([low = 0, high = 0]) => byte >= low && byte <= high);
  let next = 256;
  const tokens = Array.from({ length: vocabSize }, (_, id) =>
    id < 256 ? String.fromCharCode(isPrintable(id) ? id : next++) : `w${id}`,
  );
  const end = vocabSize - 1;
  metadata.set('tokenizer.ggml.model', { type: 'string', value: 'gpt2' });
  metadata.set('tokenizer.ggml.pre', { type: 'string', value: 'gpt-2' });
  metadata.set('tokenizer.ggml.tokens', { type: 'strings', value: tokens });
  const kinds = Int32Array.from(tokens, (_, id) => (id === end ? 3 : 1));
  metadata.set('tokenizer.ggml.token_type', { type: 'i32s', value: kinds });
  metadata.set('tokenizer.ggml.merges', { type: 'strings', value: ['t h'] });
  metadata.set('tokenizer.ggml.eos_token_id', { type: 'u32', value: end });
}

/**
 * Norms are ones, biases and sinks zeros.
 * @param {string} role @param {{ name: string, dtype: DTypeName, shape: number[] }} tensor
 */
function* pieces(role, tensor) {
  const isVector = role.endsWith('Norm') || role.endsWith('Bias') || role === 'attentionSinks';
  const pattern = isVector
    ? Buffer.from(new Float32Array(PATTERN_BLOCKS).fill(role.endsWith('Norm') ? 1 : 0).buffer)
    : patternOf(tensor.dtype);
  const bytes = tensorBytes(tensor);
  // Tensors begin at different places: else all layers and their routers would be alike.
  const step = FORMATS[tensor.dtype]?.bytes ?? 4;
  let from = isVector ? 0 : ((patterns++ * 2654435761) % (pattern.length / step)) * step;
  for (let done = 0; done < bytes; from = 0) {
    const piece = pattern.subarray(from, from + bytes - done);
    done += piece.length;
    yield piece;
  }
}

/** @param {DTypeName} dtype */
function patternOf(dtype) {
  const format = FORMATS[dtype];
  if (format === undefined)
    throw new Error(`expected a format of ${Object.keys(FORMATS).join(', ')}, got ${dtype}`);
  const pattern = Buffer.alloc((dtype === 'f32' ? PATTERN_FLOATS : PATTERN_BLOCKS) * format.bytes);
  let state = 12345;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  if (dtype === 'f32') {
    for (let at = 0; at < pattern.length; at += 4) pattern.writeFloatLE((random() - 0.5) * 0.07, at);
    return pattern;
  }
  for (let at = 0; at < pattern.length; at++) pattern[at] = Math.floor(random() * 256);
  for (let block = 0; block < PATTERN_BLOCKS; block++) {
    // Codes have a mean: without blocks of both signs it adds up to states that are alike for all tokens.
    const sign = dtype !== 'mxfp4' && random() < 0.5 ? 0x80 : 0;
    for (const [offset, bytes] of format.scales) {
      const signed = bytes.map((byte, at) => (at % 2 === 1 ? byte | sign : byte));
      pattern.set(signed, block * format.bytes + offset);
    }
  }
  return pattern;
}
