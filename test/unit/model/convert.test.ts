/**
 * Conversion to GGUF: the golden checkpoints through our writer against the same by gguf-py
 * (scripts/goldens/hub_to_gguf.py), value by value; specs and tokenizers as before; the half-precision codec on all of
 * its bit patterns; and read by @huggingface/gguf.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gguf } from '@huggingface/gguf';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ModelFormatError } from '../../../src/errors.js';
import { floatCodec } from '../../../src/model/float-codec.js';
import { convertToGguf } from '../../../src/model/gguf/convert.js';
import { TextList } from '../../../src/model/gguf/metadata.js';
import { readGgufHeader } from '../../../src/model/gguf/reader.js';
import { writeGguf } from '../../../src/model/gguf/writer.js';
import type { ModelSpec } from '../../../src/model/model-spec.js';
import { openModel } from '../../../src/model/open-model.js';
import { Tokenizer } from '../../../src/model/tokenizer.js';
import { modelFolder, neededTensors, newFolder, TINY_CONFIGS, thrownBy } from './tiny-checkpoint.js';

const GOLDENS = 'test/golden/fixtures';
const ARCHITECTURES = ['qwen3_moe', 'qwen2_moe', 'mixtral', 'olmoe', 'phimoe', 'granitemoe'];
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

function converted(name: string, dtype: 'keep' | 'f32' | 'f16' | 'bf16' = 'keep') {
  const hub = openModel(join(GOLDENS, name));
  const path = join(newFolder(), 'model.gguf');
  convertToGguf(hub, path, { dtype });
  return { hub, path, back: openModel(path) };
}

/** GGUF keeps numbers as float32; q and k of some families are stored for the other rotary layout. */
function comparable(spec: ModelSpec): unknown {
  const ropes = spec.ropes.map(({ style: _, ...rope }) => rope);
  return JSON.parse(JSON.stringify({ ...spec, ropes }), (_key, value) =>
    typeof value === 'number' ? Number(value.toPrecision(6)) : value,
  );
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
  const { hub, path, back } = converted(name);

  it('has the tensors that gguf-py wrote, bit for bit', () => {
    const ours = bytesByName(path);
    const theirs = bytesByName(join('test/fixtures/gguf/golden', `${name}.gguf`));
    expect([...ours.keys()].sort()).toEqual([...theirs.keys()].sort());
    for (const [tensor, values] of theirs) expect(ours.get(tensor)?.equals(values), tensor).toBe(true);
  });

  it('opens with the same spec, template and end-of-text ids', () => {
    expect(comparable(back.spec)).toEqual(comparable(hub.spec));
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

  it('a format without a codec leaves no file behind', () => {
    const path = join(newFolder(), 'model.gguf');
    const hub = openModel(join(GOLDENS, 'qwen3_moe-rope-linear'));
    expect(() => convertToGguf(hub, path, { dtype: 'q4_0' })).toThrow(/no encoder for/);
    expect(existsSync(path) || existsSync(`${path}.partial`)).toBe(false);
  });

  it('rows that are no whole blocks get another format, and the report says which', () => {
    const hub = openModel(join(GOLDENS, 'mixtral'));
    const report = convertToGguf(hub, join(newFolder(), 'model.gguf'), { dtype: 'q4_0' });
    expect(report.otherFormat).toContainEqual({ name: 'blk.0.attn_q.weight', dtype: 'f16' });
    expect(Object.keys(report.bytesByDtype).sort()).toEqual(['f16', 'f32']);
  });

  it('progress ends at the whole', () => {
    const hub = openModel(join(GOLDENS, 'granitemoe'));
    const seen: [number, number][] = [];
    const onProgress = (done: number, total: number) => void seen.push([done, total]);
    convertToGguf(hub, join(newFolder(), 'model.gguf'), { dtype: 'f16', onProgress });
    const [done, total] = seen.at(-1) ?? [0, 1];
    expect(done).toBe(total);
    expect(seen.every(([bytes], i) => bytes > (seen[i - 1]?.[0] ?? 0))).toBe(true);
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
    expect(() => writeGguf(path, new Map(), [tensor])).toThrow(/t: expected 16 bytes of values, got 12/);
    const odd = { ...tensor, dtype: 'q8_0' } as const;
    expect(() => writeGguf(path, new Map(), [odd])).toThrow(/2 columns are no whole blocks of q8_0/);
    expect(existsSync(path)).toBe(false);
  });
});

describe('half precision', () => {
  it.each(['f16', 'bf16'] as const)('%s: every bit pattern comes back', (dtype) => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const values = floatCodec.decode(dtype, new Uint8Array(bits.buffer), 1, 65536);
    const back = new Uint16Array(floatCodec.encode(dtype, values, 1, 65536).buffer);
    for (let i = 0; i < 65536; i++) {
      if (!Number.isNaN(values[i])) expect(back[i]).toBe(i);
      else
        expect(Number.isNaN(floatCodec.decode(dtype, new Uint8Array(back.buffer, i * 2, 2), 1, 1)[0])).toBe(
          true,
        );
    }
  });

  it.each(['f16', 'bf16'] as const)('%s: rounds to the nearest, ties to even', (dtype) => {
    const round = (value: number) => {
      const bytes = floatCodec.encode(dtype, Float32Array.of(value), 1, 1);
      return {
        value: floatCodec.decode(dtype, bytes, 1, 1)[0] ?? 0,
        bits: (bytes[0] ?? 0) | ((bytes[1] ?? 0) << 8),
      };
    };
    fc.assert(
      fc.property(fc.float({ min: Math.fround(-60000), max: Math.fround(60000), noNaN: true }), (value) => {
        const { value: rounded, bits } = round(value);
        for (const neighbour of [bits - 1, bits + 1]) {
          const bytes = Uint8Array.of(neighbour & 255, (neighbour >> 8) & 255);
          const other = floatCodec.decode(dtype, bytes, 1, 1)[0] ?? Number.NaN;
          const [distance, otherDistance] = [Math.abs(value - rounded), Math.abs(value - other)];
          // A neighbour of another sign or an infinity is no nearer; an equally near one must be the odd one.
          if (Number.isFinite(other)) expect(distance <= otherDistance).toBe(true);
          if (distance === otherDistance && distance > 0) expect(bits % 2).toBe(0);
        }
      }),
      { numRuns: 2000, seed: 3 },
    );
    expect(round(dtype === 'f16' ? 65520 : 3.4e38).value).toBe(Infinity);
  });
});
