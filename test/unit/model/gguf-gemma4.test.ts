/**
 * GGUF files of Llama 4 and Gemma 4 by gguf-py have the specs of their checkpoints. The vocabulary of Gemma 4's files: byte-pair merges over visible spaces with bytes to fall back on, held to what
 * Hugging Face's tokenizers gave for the same vocabulary and merges.
 */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { readGgufHeader } from '../../../src/model/gguf/reader.js';
import { readGgufTokenizer } from '../../../src/model/gguf/tokenizer.js';
import { openModel } from '../../../src/model/open-model.js';
import { ggufFile, type Metadata } from './gguf-bytes.js';
import { newFile } from './tiny-checkpoint.js';

type Fixture = {
  tokenizer: {
    model: { vocab: Record<string, number>; merges: [string, string][] };
    added_tokens: { id: number; content: string; special: boolean }[];
  };
  cases: { text: string; ids: number[]; idsWithoutSpecial: number[]; decoded: string }[];
};

const { tokenizer, cases } = JSON.parse(
  readFileSync('test/fixtures/tokenizers/byte-fallback.json', 'utf8'),
) as Fixture;

it('encodes and decodes by its merges', () => {
  const tokens: string[] = [];
  for (const [text, id] of Object.entries(tokenizer.model.vocab)) tokens[id] = text;
  for (const { id, content } of tokenizer.added_tokens) tokens[id] = content;
  const kinds: number[] = tokens.map((text) => (/^<0x..>$/.test(text) ? 6 : 1));
  for (const { id, special } of tokenizer.added_tokens) kinds[id] = special ? 3 : 4;
  const metadata: Metadata = {
    'tokenizer.ggml.model': 'gemma4',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': kinds,
    'tokenizer.ggml.scores': tokens.map(() => 0),
    'tokenizer.ggml.merges': tokenizer.model.merges.map((pair) => pair.join(' ')),
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.add_bos_token': true,
    // Gemma's files say false; this vocabulary was trained with a space in front.
    'tokenizer.ggml.add_space_prefix': true,
  };
  const header = readGgufHeader(newFile('model.gguf', ggufFile(metadata, [])));
  const ours = readGgufTokenizer(header.metadata, tokens.length);
  for (const { text, ids, idsWithoutSpecial, decoded } of cases) {
    expect(ours.encode(text), text).toEqual(ids);
    expect(ours.encode(text, { addSpecialTokens: false }), text).toEqual(idsWithoutSpecial);
    expect(ours.decode(ids)).toBe(decoded);
  }
});

const CHECKPOINTS = 'test/golden/fixtures';

/** Values that GGUF keeps as float32 are rounded in it. */
const inFloat32 = (spec: unknown): unknown =>
  JSON.parse(JSON.stringify(spec), (_key, value) => (typeof value === 'number' ? Math.fround(value) : value));

it.each(['llama4', 'gemma4'])('the spec of %s.gguf is that of its checkpoint', (name) => {
  const { spec, weights } = openModel(`test/fixtures/gguf/golden/${name}.gguf`);
  const hub = openModel(`${CHECKPOINTS}/${name}`);
  expect(inFloat32(spec)).toEqual(inFloat32(hub.spec));
  expect(weights.length).toBe(hub.weights.length);
});
