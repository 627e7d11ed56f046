/**
 * GGUF files by gguf-py (test/fixtures/gguf, made by scripts/goldens/gguf_fixtures.py): tensors against what gguf-py and
 * @huggingface/gguf read, specs against the config.json that transformers wrote, tokenizers against Hugging Face's.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gguf } from '@huggingface/gguf';
import { describe, expect, it } from 'vitest';
import { ConfigReader } from '../../../src/model/config.js';
import { familyOf } from '../../../src/model/families/registry.js';
import { TextList } from '../../../src/model/gguf/metadata.js';
import { readGgufHeader } from '../../../src/model/gguf/reader.js';
import { readGgufModel } from '../../../src/model/gguf/split.js';
import type { ModelSpec } from '../../../src/model/model-spec.js';
import { openModel } from '../../../src/model/open-model.js';
import type { Json } from './tiny-checkpoint.js';

const ROOT = 'test/fixtures/gguf';
const NAMES = ['qwen3_moe', 'qwen2_moe', 'mixtral', 'olmoe', 'phimoe', 'granitemoe'];

type Expected = { config: Json; tokenizer: string; tensors: object[] };
type TokenizerFixture = {
  cases: { text: string; ids: number[]; idsWithoutSpecial: number[]; decoded: string }[];
};

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

const pathOf = (name: string) => join(ROOT, `${name}.gguf`);

describe.each([...NAMES, 'types'])('%s.gguf', (name) => {
  const header = readGgufHeader(pathOf(name));

  it('has the tensors that gguf-py reads', () => {
    const { tensors } = readJson<Expected>(join(ROOT, `${name}.json`));
    expect(header.tensors.map(({ file: _, ...tensor }) => tensor)).toEqual(tensors);
  });

  it('has the metadata and tensor infos that @huggingface/gguf reads', async () => {
    const other = await gguf(pathOf(name), { allowLocalFile: true });
    for (const tensor of other.tensorInfos) {
      const ours = header.tensors.find((candidate) => candidate.name === tensor.name);
      expect(ours?.shape).toEqual(tensor.shape.map(Number).reverse());
      expect((ours?.offsetBytes ?? 0) - Number(other.tensorDataOffset)).toBe(Number(tensor.offset));
    }
    expect(other.tensorInfos.length).toBe(header.tensors.length);
    for (const key of header.metadata.keys()) {
      const ours = header.metadata.get(key);
      const theirs = (other.metadata as Record<string, unknown>)[key];
      const list = ours instanceof TextList ? ours.toArray() : ours;
      const plain = ArrayBuffer.isView(list) ? Array.from(list) : list;
      const number = typeof theirs === 'bigint' && typeof plain === 'number' ? Number(theirs) : theirs;
      expect(plain, key).toEqual(number);
    }
  });
});

/** Values that GGUF keeps as float32 are rounded in it. */
function inFloat32(spec: ModelSpec): unknown {
  return JSON.parse(JSON.stringify(spec), (_key, value) =>
    typeof value === 'number' ? Math.fround(value) : value,
  );
}

describe.each(NAMES)('%s as a model', (name) => {
  const { config, tokenizer } = readJson<Expected>(join(ROOT, `${name}.json`));
  const model = openModel(pathOf(name));

  it('has the spec of the checkpoint that it was converted from', () => {
    const reader = new ConfigReader(config, 'config.json');
    const spec = familyOf(reader).readSpec(reader);
    const style = name === 'mixtral' || name === 'granitemoe' ? 'interleaved' : 'neox';
    const ropes = spec.ropes.map((rope) => ({ ...rope, style }) as const);
    const scaling = model.spec.ropes[0]?.scaling;
    if (scaling?.type === 'longrope') {
      // The config has only Phi's mscales, which go before it.
      expect(scaling.attentionFactor).toBeCloseTo(Math.sqrt(1 + Math.log(4) / Math.log(32)), 6);
      scaling.attentionFactor = undefined;
    }
    expect(inFloat32(model.spec)).toEqual(inFloat32({ ...spec, ropes }));
  });

  it('has every weight placed once', () => {
    const used = new Map<string, number>();
    for (const { tensor, rows, cols } of model.weights)
      used.set(tensor, (used.get(tensor) ?? 0) + rows * cols);
    for (const { name: tensor, shape } of model.tensors) {
      if (!tensor.startsWith('rope_factors')) {
        expect(used.get(tensor), tensor).toBe(shape.reduce((a, b) => a * b, 1));
      }
    }
  });

  it('tokenizes like the tokenizer that it was converted from', () => {
    const { cases } = readJson<TokenizerFixture>(`test/fixtures/tokenizers/${tokenizer}.json`);
    for (const { text, ids, idsWithoutSpecial, decoded } of cases) {
      expect(model.tokenizer.encode(text), text).toEqual(ids);
      expect(model.tokenizer.encode(text, { addSpecialTokens: false }), text).toEqual(idsWithoutSpecial);
      expect(model.tokenizer.decode(ids)).toBe(decoded);
    }
  });

  it('has its chat template and end-of-text ids', () => {
    const eos = model.tokenizer.tokenText(400);
    expect(model.chatTemplate.render({ messages: [{ role: 'user', content: 'x' }] })).toBe(`x${eos}`);
    const end = model.tokenizer.tokenId('<|end|>') ?? -1;
    expect(new Set(model.generation.eosTokenIds)).toEqual(new Set([400, end]));
  });
});

describe('split files', () => {
  it('are one model', () => {
    const { tensors } = readGgufModel(join(ROOT, 'split-00001-of-00003.gguf'));
    expect(tensors.count).toBe(5);
    expect([...tensors].map(({ name, file }) => [name, file])).toEqual([
      ['tensor.0', 0],
      ['tensor.1', 0],
      ['tensor.2', 1],
      ['tensor.3', 1],
      ['tensor.4', 2],
    ]);
    const tensor = tensors.get('tensor.3');
    const bytes = readFileSync(tensors.files[1] ?? '');
    expect(bytes.readFloatLE(tensor?.offsetBytes)).toBe(3);
  });
});
