/**
 * Conversion to GGUF: the golden checkpoints through our writer against the same by gguf-py
 * (scripts/goldens/hub_to_gguf.py), value by value; specs and tokenizers as before; the half-precision codec on all of
 * its bit patterns; and read by @huggingface/gguf.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gguf } from '@huggingface/gguf';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { binding } from '../../../src/binding.js';
import { ModelFormatError, OutputError } from '../../../src/errors.js';
import { convertSteps, convertToGguf } from '../../../src/model/gguf/convert.js';
import { TextList } from '../../../src/model/gguf/metadata.js';
import { readGgufHeader } from '../../../src/model/gguf/reader.js';
import { writeGguf } from '../../../src/model/gguf/writer.js';
import type { ModelSpec } from '../../../src/model/model-spec.js';
import { openModel } from '../../../src/model/open-model.js';
import { Tokenizer } from '../../../src/model/tokenizer.js';
import { modelFolder, neededTensors, newFolder, TINY_CONFIGS, thrownBy } from './tiny-checkpoint.js';

const GOLDENS = 'test/golden/fixtures';
const ARCHITECTURES = [
  ...['qwen3_moe', 'qwen2_moe', 'mixtral', 'olmoe', 'phimoe', 'granitemoe'],
  ...['glm4_moe', 'ernie4_5_moe', 'minimax_m2'],
  ...['deepseek_v2', 'deepseek_v3', 'glm4_moe_lite', 'gpt_oss'],
  ...['llama4', 'gemma4', 'qwen3_next', 'qwen3_5_moe_text', 'lfm2_moe'],
];
const VARIANTS = [
  'qwen3_moe-bf16',
  'mixtral-f16',
  'mixtral-stacked',
  'qwen3_moe-sharded',
  'mixtral-sliding-window',
];
const SCALINGS = [
  'qwen3_moe-rope-linear',
  'qwen3_moe-rope-yarn',
  'qwen3_moe-rope-longrope',
  'phimoe-longrope',
];

const TOKENIZER = {
  'tokenizer.json': JSON.stringify(
    JSON.parse(readFileSync('test/fixtures/tokenizers/byte-level.json', 'utf8')).tokenizer,
  ),
  'tokenizer_config.json': '{}',
};

function converted(name: string, dtype: 'keep' | 'f32' | 'f16' | 'bf16' = 'keep') {
  const hub = openModel(join(GOLDENS, name));
  const path = join(newFolder(), 'model.gguf');
  convertToGguf(hub, path, { dtype });
  return { hub, path, back: openModel(path) };
}

/**
 * GGUF keeps numbers as float32; q and k of some families are stored for the other rotary layout, value heads of some in
 * turn.
 */
function comparable(spec: ModelSpec): unknown {
  const ropes = spec.ropes.map(({ style: _, ...rope }) => rope);
  return JSON.parse(JSON.stringify({ ...spec, ropes }), (key, value) =>
    key === 'valueHeadOrder' ? undefined : typeof value === 'number' ? Number(value.toPrecision(6)) : value,
  );
}

function expectAlmost(got: Buffer | undefined, expected: Buffer): void {
  expect(got?.length).toBe(expected.length);
  for (let at = 0; at < expected.length; at += 4) {
    const value = expected.readFloatLE(at);
    expect(Math.abs((got?.readFloatLE(at) ?? Number.NaN) / value - 1)).toBeLessThan(2e-7);
  }
}

function bytesByName(path: string): Map<string, Buffer> {
  const file = readFileSync(path);
  return new Map(
    readGgufHeader(path).tensors.map(({ name, offsetBytes, sizeBytes }) => [
      name,
      file.subarray(offsetBytes, offsetBytes + sizeBytes),
    ]),
  );
}

describe.each(ARCHITECTURES)('%s', (name) => {
  // gpt-oss's experts are MXFP4; gguf-py's file has them decoded.
  const { hub, path, back } = converted(name, 'f32');

  it('has the tensors that gguf-py wrote, bit for bit', () => {
    const ours = bytesByName(path);
    const theirs = bytesByName(join('test/fixtures/gguf/golden', `${name}.gguf`));
    expect([...ours.keys()].sort()).toEqual([...theirs.keys()].sort());
    for (const [tensor, values] of theirs) {
      // The two sides' exponential functions differ in the last bit.
      if (tensor.endsWith('.ssm_a')) expectAlmost(ours.get(tensor), values);
      else expect(ours.get(tensor)?.equals(values), tensor).toBe(true);
    }
  });

  it('opens with the same spec, template and end-of-text ids', () => {
    // GGUF has one architecture for all that took DeepSeek's design over.
    const { architecture } = hub.spec;
    expect(comparable({ ...back.spec, architecture })).toEqual(comparable(hub.spec));
    expect(back.chatTemplate.texts).toEqual(hub.chatTemplate.texts);
    expect(back.generation.eosTokenIds).toEqual(expect.arrayContaining([...hub.generation.eosTokenIds]));
  });

  it('is read by @huggingface/gguf', async () => {
    const { tensorInfos, metadata } = await gguf(path, { allowLocalFile: true });
    expect(tensorInfos.length).toBe(back.tensors.count);
    expect(metadata['general.architecture']).toBe(readGgufHeader(path).metadata.text('general.architecture'));
  });
});

describe('other checkpoints', () => {
  it.each(VARIANTS)('%s keeps its spec and its values', (name) => {
    const { hub, back } = converted(name);
    expect(comparable(back.spec)).toEqual(comparable(hub.spec));
    const down = back.tensors.get('blk.0.ffn_down_exps.weight');
    expect(down?.dtype).toBe(name.endsWith('bf16') ? 'bf16' : name.endsWith('f16') ? 'f16' : 'f32');
  });

  it.each(SCALINGS)('%s keeps its frequencies', (name) => {
    const { hub, back } = converted(name);
    const scaling = back.spec.ropes[0]?.scaling;
    if (scaling?.type === 'longrope' && hub.spec.ropes[0]?.scaling.type === 'longrope') {
      scaling.attentionFactor = hub.spec.ropes[0].scaling.attentionFactor;
      scaling.shortMscale = hub.spec.ropes[0].scaling.shortMscale;
      scaling.longMscale = hub.spec.ropes[0].scaling.longMscale;
      scaling.factor = hub.spec.ropes[0].scaling.factor;
    }
    expect(comparable(back.spec)).toEqual(comparable(hub.spec));
  });

  it('turns Llama 3 scaling into factors of the frequencies', async () => {
    const { hub, back } = converted('qwen3_moe-rope-llama3');
    const { computeFrequencies } = await import('../../../src/model/rope.js');
    const [before, after] = [hub, back].map(({ spec }) => spec.ropes[0]);
    if (before === undefined || after === undefined) throw new Error('no rope');
    const expected = computeFrequencies(before, 1).inverseFrequencies;
    computeFrequencies(after, 1).inverseFrequencies.forEach((frequency, i) => {
      expect(Math.abs(frequency / (expected[i] ?? 0) - 1)).toBeLessThan(3e-7);
    });
  });

  it.each([
    ['qwen3_moe-rope-dynamic', /any scaling but dynamic/],
    ['qwen2_moe-sliding-window', /one window for all layers, got 24 and 0/],
    ['llama4-conditional', /layer_types: expected layers in the order .* that Scout and Maverick have/],
  ])('%s is refused: GGUF cannot say it', (name, message) => {
    const path = join(newFolder(), 'model.gguf');
    const error = thrownBy(() => convertToGguf(openModel(join(GOLDENS, name)), path, { dtype: 'keep' }));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
    expect(existsSync(path)).toBe(false);
  });

  it('a GGUF file is refused as a source', () => {
    const opened = openModel('test/fixtures/gguf/mixtral.gguf');
    const error = thrownBy(() => convertToGguf(opened, join(newFolder(), 'x.gguf'), { dtype: 'keep' }));
    expect(error.message).toMatch(/expected a checkpoint folder .*, got a GGUF file/);
  });

  it.each([
    ['q8_0', Number.NaN],
    ['q4_k', Number.POSITIVE_INFINITY],
    ['f16', 70000],
  ] as const)('a value that %s cannot hold names its tensor and leaves no file behind', (dtype, value) => {
    const config = { ...TINY_CONFIGS.olmoe, vocab_size: 600 };
    const tensors = neededTensors(config);
    const folder = modelFolder({ config, tensors, files: TOKENIZER });
    const weights = join(folder, 'model.safetensors');
    const { offsetBytes } = openModel(folder).tensors.get('model.layers.0.self_attn.v_proj.weight') ?? {};
    const file = readFileSync(weights);
    file.writeFloatLE(value, offsetBytes ?? -1);
    writeFileSync(weights, file);
    const path = join(newFolder(), 'model.gguf');
    const error = thrownBy(() => convertToGguf(openModel(folder), path, { dtype }));
    expect(error).toMatchObject({
      code: 'ERR_WEIGHT_VALUE',
      field: 'model.layers.0.self_attn.v_proj.weight',
    });
    expect(existsSync(path) || existsSync(`${path}.partial`)).toBe(false);
  });

  it('stopped in the middle leaves no file behind, and an older one alone', () => {
    const path = join(newFolder(), 'model.gguf');
    writeFileSync(path, 'older');
    const steps = convertSteps(openModel(join(GOLDENS, 'mixtral')), path, { dtype: 'f16' });
    const first = steps.next();
    expect(existsSync(`${path}.partial`)).toBe(true);
    expect(first.done === false && first.value.doneBytes < first.value.totalBytes).toBe(true);
    steps.return({ bytesByDtype: {}, otherFormat: [] });
    expect(existsSync(`${path}.partial`)).toBe(false);
    expect(readFileSync(path, 'utf8')).toBe('older');
  });

  it('a folder that is not there is an OutputError', () => {
    const hub = openModel(join(GOLDENS, 'mixtral'));
    expect(() => convertToGguf(hub, join(newFolder(), 'no', 'm.gguf'), { dtype: 'keep' })).toThrow(
      OutputError,
    );
  });

  it('rows that are no whole blocks get another format, and the report says which', () => {
    const hub = openModel(join(GOLDENS, 'mixtral'));
    const report = convertToGguf(hub, join(newFolder(), 'model.gguf'), { dtype: 'q4_0' });
    expect(report.otherFormat).toContainEqual({ name: 'blk.0.attn_q.weight', dtype: 'f16' });
    expect(Object.keys(report.bytesByDtype).sort()).toEqual(['f16', 'f32']);
  });

  it('progress ends at the whole', () => {
    const hub = openModel(join(GOLDENS, 'granitemoe'));
    const seen = [...convertSteps(hub, join(newFolder(), 'model.gguf'), { dtype: 'f16' })];
    expect(seen.at(-1)?.doneBytes).toBe(seen.at(-1)?.totalBytes);
    expect(seen.every(({ doneBytes }, i) => doneBytes > (seen[i - 1]?.doneBytes ?? 0))).toBe(true);
  });
});

describe('tokenizers', () => {
  const texts = ['Once upon a time', '  the fox’s 12345 🙂👍🏽 naïve\n\n x', '<|user|>hi<|end|>'];

  it.each(['byte-level', 'byte-fallback'])('%s encodes as before', (name) => {
    const { tokenizer: json } = JSON.parse(readFileSync(`test/fixtures/tokenizers/${name}.json`, 'utf8'));
    const config = { ...TINY_CONFIGS.olmoe, vocab_size: 600 };
    const special = name === 'byte-fallback' ? { bos_token: '<s>', unk_token: '<unk>' } : {};
    const folder = modelFolder({
      config,
      tensors: neededTensors(config),
      files: { 'tokenizer.json': JSON.stringify(json), 'tokenizer_config.json': JSON.stringify(special) },
    });
    const path = join(newFolder(), 'model.gguf');
    convertToGguf(openModel(folder), path, { dtype: 'keep' });
    const { metadata } = readGgufHeader(path);
    expect(metadata.has('tokenizer.huggingface.json')).toBe(false);
    expect(metadata.get('tokenizer.ggml.tokens')).toBeInstanceOf(TextList);
    const before = new Tokenizer(json, {}, 'tokenizer.json');
    const after = openModel(path).tokenizer;
    for (const text of texts) expect(after.encode(text)).toEqual(before.encode(text));
  });

  it('that GGUF has no name for travel whole', () => {
    const { tokenizer: json } = JSON.parse(readFileSync('test/fixtures/tokenizers/byte-level.json', 'utf8'));
    json.normalizer = { type: 'Lowercase' };
    const config = { ...TINY_CONFIGS.olmoe, vocab_size: 600 };
    const files = { 'tokenizer.json': JSON.stringify(json), 'tokenizer_config.json': '{}' };
    const path = join(newFolder(), 'model.gguf');
    convertToGguf(openModel(modelFolder({ config, tensors: neededTensors(config), files })), path, {
      dtype: 'keep',
    });
    const { tokenizer } = openModel(path);
    expect(tokenizer.encode('FOX')).toEqual(tokenizer.encode('fox'));
  });
});

describe('the writer', () => {
  it('refuses values that do not fill their shape', () => {
    const path = join(newFolder(), 'x.gguf');
    const tensor = { name: 't', dtype: 'f32', shape: [2, 2], pieces: () => [new Uint8Array(12)] } as const;
    expect(() => [...writeGguf(path, new Map(), [tensor])]).toThrow(/t: expected 16 bytes of values, got 12/);
    const odd = { ...tensor, dtype: 'q8_0' } as const;
    expect(() => [...writeGguf(path, new Map(), [odd])]).toThrow(/2 columns are no whole blocks of q8_0/);
    expect(existsSync(path)).toBe(false);
  });
});

describe('quantised files', () => {
  const path = join(newFolder(), 'model.gguf');
  const report = convertToGguf(openModel('test/fixtures/quantize/checkpoint'), path, { dtype: 'q8_0' });

  it('have the bits of the same file by gguf-py', () => {
    const ours = bytesByName(path);
    const theirs = bytesByName('test/fixtures/quantize/q8_0.gguf');
    expect([...ours.keys()].sort()).toEqual([...theirs.keys()].sort());
    for (const [tensor, values] of theirs) expect(ours.get(tensor)?.equals(values), tensor).toBe(true);
    expect(report.otherFormat).toEqual([]);
  });

  it('in q4_0 differ from it in the output matrix only', () => {
    const q4 = join(newFolder(), 'model.gguf');
    const { otherFormat } = convertToGguf(openModel('test/fixtures/quantize/checkpoint'), q4, {
      dtype: 'q4_0',
    });
    expect(otherFormat).toEqual([{ name: 'output.weight', dtype: 'q8_0' }]);
    const ours = bytesByName(q4);
    const theirs = bytesByName('test/fixtures/quantize/q4_0.gguf');
    for (const [tensor, values] of theirs) expect(ours.get(tensor)?.equals(values), tensor).toBe(true);
  });

  it('say what they are to @huggingface/gguf', async () => {
    const { tensorInfos, metadata } = await gguf(path, { allowLocalFile: true });
    expect(metadata).toMatchObject({ 'general.file_type': 7, 'general.quantization_version': 2 });
    const query = tensorInfos.find(({ name }) => name === 'blk.0.attn_q.weight');
    expect(query?.dtype).toBe(8);
  });
});

describe('half precision', () => {
  const F32 = 0;
  const number = { f16: 1, bf16: 2 } as const;
  const toBits = (dtype: 'f16' | 'bf16', values: Float32Array) => {
    const bytes = binding().convertRows(
      F32,
      new Uint8Array(values.buffer),
      number[dtype],
      1,
      values.length,
      1,
    );
    return new Uint16Array(bytes.buffer);
  };
  const toFloats = (dtype: 'f16' | 'bf16', bits: Uint16Array) => {
    const bytes = binding().convertRows(number[dtype], new Uint8Array(bits.buffer), F32, 1, bits.length, 1);
    return new Float32Array(bytes.buffer);
  };
  const finite = (dtype: 'f16' | 'bf16', bits: number) => {
    const exponent = dtype === 'f16' ? 0x7c00 : 0x7f80;
    return (bits & exponent) !== exponent;
  };

  it.each(['f16', 'bf16'] as const)('%s: every finite bit pattern comes back', (dtype) => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((each) => finite(dtype, each));
    expect(toBits(dtype, toFloats(dtype, bits))).toEqual(bits);
  });

  it.each(['f16', 'bf16'] as const)('%s: rounds to the nearest, ties to even', (dtype) => {
    fc.assert(
      fc.property(fc.float({ min: Math.fround(-60000), max: Math.fround(60000), noNaN: true }), (value) => {
        const [bits = 0] = toBits(dtype, Float32Array.of(value));
        const [rounded = 0] = toFloats(dtype, Uint16Array.of(bits));
        for (const neighbour of [bits - 1, bits + 1]) {
          // A neighbour beyond zero or among the infinities is no nearer; an equally near one must be the odd one.
          if (neighbour < 0 || !finite(dtype, neighbour)) continue;
          const [other = Number.NaN] = toFloats(dtype, Uint16Array.of(neighbour));
          const [distance, otherDistance] = [Math.abs(value - rounded), Math.abs(value - other)];
          expect(distance <= otherDistance).toBe(true);
          if (distance === otherDistance && distance > 0) expect(bits % 2).toBe(0);
        }
      }),
      { numRuns: 2000, seed: 3 },
    );
  });
});
