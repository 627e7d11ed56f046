/**
 * Writes a GGUF file with the shapes of a published model and made-up weights, streaming, so that speed can be compared
 * on files that nobody has to download: `node bench/random-gguf.mjs OUT.gguf [--shape olmoe-1b-7b] [--quant q4_0]` after
 * `npm run build:ts`. Formats: f32, q8_0, q4_0, q4_k_m. Its text is noise.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { GGUF_NAMES } from '../dist/model/gguf/names.js';
import { openModel } from '../dist/model/open-model.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shape: { type: 'string', default: 'olmoe-1b-7b' },
    quant: { type: 'string', default: 'q4_0' },
  },
});
const [out] = positionals;
if (out === undefined) {
  console.error('usage: node bench/random-gguf.mjs OUT.gguf [--shape olmoe-1b-7b] [--quant q4_0]');
  process.exit(2);
}

const ALIGNMENT = 32;
/** Blocks of a pattern that is repeated: a prime, so that rows differ. */
const PATTERN_BLOCKS = 4099;
/** @type {Record<string, string>} */
const ARCHITECTURES = { olmoe: 'olmoe', qwen3_moe: 'qwen3moe' };
/**
 * Number of the type in GGUF, columns and bytes of a block, offsets of its float16 scales and their bits.
 * @type {Record<string, { type: number, cols: number, bytes: number, scales: number[], bits: number }>}
 */
const FORMATS = {
  f32: { type: 0, cols: 1, bytes: 4, scales: [], bits: 0 },
  q4_0: { type: 2, cols: 32, bytes: 18, scales: [0], bits: 0x1c00 },
  q8_0: { type: 8, cols: 32, bytes: 34, scales: [0], bits: 0x0c00 },
  q4_k: { type: 12, cols: 256, bytes: 144, scales: [0, 2], bits: 0x0c00 },
  q6_k: { type: 14, cols: 256, bytes: 210, scales: [208], bits: 0x0150 },
};

const model = openModel(`synthetic:${values.shape}:${values.quant}`);
const architecture = ARCHITECTURES[model.spec.architecture];
if (architecture === undefined) throw new Error(`no GGUF name for architecture ${model.spec.architecture}`);

/** @type {Map<string, { rows: number, cols: number, experts: number, dtype: string }>} */
const tensors = new Map();
for (const { role, layer, rows, cols, tensor } of model.weights) {
  const pattern = GGUF_NAMES[role]?.[0];
  if (typeof pattern !== 'string') throw new Error(`no GGUF name for ${role}`);
  const name = pattern.replace('{layer}', `${layer}`);
  const dtype = model.tensors.get(tensor)?.dtype ?? 'f32';
  const known = tensors.get(name);
  if (known) known.experts++;
  else tensors.set(name, { rows, cols, experts: 1, dtype });
}

/** @param {string} text */
const string = (text) => {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([length, bytes]);
};
/** @param {number} value */
const u32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
/** @param {number} value */
const u64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
/** @param {number} value */
const f32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
};
/** @type {Buffer[]} */
const metadata = [];
/** @type {(key: string, type: number, ...value: Buffer[]) => number} */
const add = (key, type, ...value) => metadata.push(Buffer.concat([string(key), u32(type), ...value]));
const [U32, I32, F32, STRING, ARRAY] = [4, 5, 6, 8, 9];

addMetadata();
let offset = 0;
const infos = [...tensors].map(([name, { rows, cols, experts, dtype }]) => {
  const format = formatOf(dtype);
  const sizeBytes = ((rows * experts * cols) / format.cols) * format.bytes;
  const shape = experts > 1 ? [cols, rows, experts] : rows > 1 ? [cols, rows] : [cols];
  const info = Buffer.concat([
    ...[string(name), u32(shape.length), ...shape.map(u64), u32(format.type), u64(offset)],
  ]);
  offset = align(offset + sizeBytes);
  return { info, sizeBytes, dtype, isVector: rows === 1 };
});

const file = openSync(out, 'w');
const header = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(infos.length), u64(metadata.length)]);
const head = Buffer.concat([header, ...metadata, ...infos.map(({ info }) => info)]);
write(Buffer.concat([head, Buffer.alloc(align(head.length) - head.length)]));
for (const { sizeBytes, dtype, isVector } of infos) {
  const pattern = patternOf(dtype, isVector);
  for (let done = 0; done < sizeBytes; done += pattern.length) write(pattern.subarray(0, sizeBytes - done));
  write(Buffer.alloc(align(sizeBytes) - sizeBytes));
}
closeSync(file);
console.log(`${out}: ${infos.length} tensors, ${((head.length + offset) / 1e9).toFixed(2)} GB`);

function addMetadata() {
  const { spec } = model;
  const [layer] = spec.layers;
  if (layer?.ffn.kind !== 'moe') throw new Error('the first layer has no experts');
  const { attention, ffn } = layer;
  add('general.architecture', STRING, string(architecture ?? ''));
  add('general.name', STRING, string(`random ${values.shape}`));
  /** @type {(name: string, value: number) => number} */
  const addCount = (name, value) => add(`${architecture}.${name}`, U32, u32(value));
  addCount('context_length', spec.maxPositions);
  addCount('embedding_length', spec.hiddenSize);
  addCount('block_count', spec.layers.length);
  addCount('feed_forward_length', ffn.intermediateSize);
  addCount('expert_feed_forward_length', ffn.intermediateSize);
  addCount('expert_count', ffn.numExperts);
  addCount('expert_used_count', ffn.numExpertsPerTok);
  addCount('attention.head_count', attention.numHeads);
  addCount('attention.head_count_kv', attention.numKvHeads);
  addCount('attention.key_length', attention.headDim);
  addCount('attention.value_length', attention.headDim);
  addCount('rope.dimension_count', attention.headDim);
  addCount('vocab_size', spec.vocabSize);
  add(`${architecture}.rope.freq_base`, F32, f32(spec.ropes[0]?.theta ?? 10000));
  add(`${architecture}.attention.layer_norm_rms_epsilon`, F32, f32(1e-5));
  addTokenizer(spec.vocabSize);
}

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
  add('tokenizer.ggml.model', STRING, string('gpt2'));
  add('tokenizer.ggml.pre', STRING, string('gpt-2'));
  add('tokenizer.ggml.tokens', ARRAY, u32(STRING), u64(vocabSize), ...tokens.map(string));
  add(
    'tokenizer.ggml.token_type',
    ARRAY,
    u32(I32),
    u64(vocabSize),
    ...tokens.map((_, id) => u32(id === vocabSize - 1 ? 3 : 1)),
  );
  add('tokenizer.ggml.merges', ARRAY, u32(STRING), u64(1), string('t h'));
  add('tokenizer.ggml.eos_token_id', U32, u32(vocabSize - 1));
}

/** @param {string} dtype @param {boolean} isVector norms are ones */
function patternOf(dtype, isVector) {
  const { bytes, scales, bits } = formatOf(dtype);
  const pattern = Buffer.alloc(PATTERN_BLOCKS * bytes);
  let state = 12345;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  if (dtype === 'f32') {
    for (let at = 0; at < pattern.length; at += 4)
      pattern.writeFloatLE(isVector ? 1 : (random() - 0.5) * 0.07, at);
    return pattern;
  }
  for (let at = 0; at < pattern.length; at++) pattern[at] = Math.floor(random() * 256);
  for (let block = 0; block < PATTERN_BLOCKS; block++) {
    for (const scale of scales) pattern.writeUInt16LE(bits, block * bytes + scale);
  }
  return pattern;
}

/** @param {string} dtype */
function formatOf(dtype) {
  const format = FORMATS[dtype];
  if (format === undefined)
    throw new Error(`expected a format of ${Object.keys(FORMATS).join(', ')}, got ${dtype}`);
  return format;
}

/** @param {number} bytes */
function align(bytes) {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** @param {Buffer} bytes */
function write(bytes) {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
}
