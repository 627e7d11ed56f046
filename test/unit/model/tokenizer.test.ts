/**
 * The tokenizer against Hugging Face's own library (test/fixtures/tokenizers, made by
 * scripts/goldens/tokenizer_fixtures.py), streams against whole texts, and broken tokenizer files.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PromptError, TokenizerError } from '../../../src/errors.js';
import { openModel } from '../../../src/model/open-model.js';
import { checkTokenIds, Tokenizer } from '../../../src/model/tokenizer.js';
import {
  type Json,
  modelFolder,
  neededTensors,
  TINY_CONFIGS,
  thrownBy,
  tinyTokenizer,
} from './tiny-checkpoint.js';

type Fixture = {
  tokenizer: Json;
  cases: {
    text: string;
    ids: number[];
    idsWithoutSpecial: number[];
    decoded: string;
    decodedWithSpecial: string;
  }[];
};

const LONE_SURROGATE = /\p{Surrogate}/u;

const NAMES = ['byte-level', 'byte-fallback', 'unigram'] as const;

function fixture(name: string): Fixture & { made: Tokenizer } {
  const data = JSON.parse(readFileSync(`test/fixtures/tokenizers/${name}.json`, 'utf8')) as Fixture;
  return { ...data, made: new Tokenizer(data.tokenizer, {}, 'tokenizer.json') };
}

describe.each(NAMES)('%s', (name) => {
  const { made, cases } = fixture(name);

  it.each(cases)('encodes and decodes $text like the reference', (expected) => {
    expect(made.encode(expected.text)).toEqual(expected.ids);
    expect(made.encode(expected.text, { addSpecialTokens: false })).toEqual(expected.idsWithoutSpecial);
    expect(made.decode(expected.ids)).toBe(expected.decoded);
    expect(made.decode(expected.ids, { skipSpecialTokens: false })).toBe(expected.decodedWithSpecial);
  });

  it('knows the bytes of each token, which add up to the text', () => {
    for (const { ids, decoded } of cases) {
      const bytes = ids.filter((id) => !made.isSpecial(id)).flatMap((id) => [...made.tokenBytes(id)]);
      // At the start of a text decoders drop a space.
      expect(Buffer.from(bytes).toString().trimStart()).toBe(decoded.trimStart());
    }
  });

  it('streams parts without half characters that add up to the whole text', () => {
    for (const { ids, decoded } of cases) {
      const stream = made.decodeStream();
      const parts = ids.map((id) => stream.push(id));
      parts.push(stream.flush());
      expect(parts.join('')).toBe(decoded);
      for (const part of parts) {
        // U+FFFD may only come from a text that has it.
        if (!decoded.includes('\ufffd')) expect(part).not.toContain('\ufffd');
        expect(part).not.toMatch(LONE_SURROGATE);
      }
    }
  });

  it('gives the same text for any ids, whole or as a stream, and starts anew after flush', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: made.vocabSize + 5 }), { maxLength: 40 }), (ids) => {
        const stream = made.decodeStream();
        for (let round = 0; round < 2; round++) {
          let text = '';
          for (const id of ids) text += stream.push(id);
          text += stream.flush();
          expect(text).toBe(made.decode(ids));
        }
      }),
      { numRuns: 200, seed: 1 },
    );
  });

  it('keeps the space in front of a continuation', () => {
    const whole = made.encode('the fox lived', { addSpecialTokens: false });
    const cut = made.encode('the', { addSpecialTokens: false }).length;
    const stream = made.decodeStream({ continuation: true });
    const text = whole.slice(cut).map((id) => stream.push(id));
    expect(text.join('') + stream.flush()).toBe(' fox lived');
  });
});

describe('token-level decoding', () => {
  it('equals the library for valid UTF-8 and holds incomplete bytes back', () => {
    const { made } = fixture('byte-level');
    const ids = made.encode('🙂', { addSpecialTokens: false });
    expect(ids.length).toBeGreaterThan(1);
    const stream = made.decodeStream();
    expect(ids.slice(0, -1).map((id) => stream.push(id))).toEqual(ids.slice(0, -1).map(() => ''));
    expect(stream.push(ids.at(-1) ?? -1)).toBe('🙂');
    expect(stream.push(ids[0] ?? -1)).toBe('');
    expect(stream.flush()).toBe('\ufffd');
    expect(made.decodeAll(ids)).toBe('🙂');
  });

  it('costs the same for each token of a long text', () => {
    for (const name of NAMES) {
      const { made } = fixture(name);
      let decodes = 0;
      const original = made.decodeAll.bind(made);
      made.decodeAll = (ids) => {
        decodes += ids.length;
        return original(ids);
      };
      const stream = made.decodeStream();
      const ids = made.encode('the river and the mill ');
      for (let i = 0; i < 2000; i++) stream.push(ids[i % ids.length] ?? 0);
      expect(decodes).toBeLessThan(2000 * 8);
    }
  });

  it('goes through a window of tokens where a decoder needs its neighbours', () => {
    const vocab = { the: 0, fox: 1, '##es': 2, '🙂': 3, '##\ufffd': 4 };
    const model = { type: 'WordPiece', vocab, unk_token: 'the', continuing_subword_prefix: '##' };
    const json = { ...tinyTokenizer(), model, added_tokens: [], pre_tokenizer: { type: 'Whitespace' } };
    const decoder = { type: 'WordPiece', prefix: '##', cleanup: false };
    const made = new Tokenizer({ ...json, decoder }, {}, 'tokenizer.json');
    const stream = made.decodeStream();
    expect([0, 1, 2, 9, 3].map((id) => stream.push(id))).toEqual(['the', ' fox', 'es', '', ' 🙂']);
    expect(stream.push(4)).toBe('');
    expect(stream.flush()).toBe('\ufffd');
    expect(made.decode([0, 1, 2, 3])).toBe(made.decodeAll([0, 1, 2, 3]));
    const continued = made.decodeStream({ continuation: true });
    expect([1, 2].map((id) => continued.push(id))).toEqual([' fox', 'es']);
  });

  it('knows special tokens, added tokens and ids without a token', () => {
    const { made } = fixture('byte-level');
    const user = made.tokenId('<|user|>') ?? -1;
    const tool = made.tokenId('<tool>') ?? -1;
    expect([made.isSpecial(user), made.isSpecial(tool), made.isAdded(tool)]).toEqual([true, false, true]);
    expect(made.decode([tool, 99999, -1])).toBe('<tool>');
  });
});

describe('tokenizer files', () => {
  it.each<[string, Json, RegExp]>([
    [
      'no model',
      { ...tinyTokenizer(), model: undefined },
      /t\.json: `model`: expected an object, got nothing/,
    ],
    [
      'an unknown model',
      { ...tinyTokenizer(), model: { type: 'Magic', vocab: { a: 0 } } },
      /one of BPE, Unigram, WordPiece, got "Magic"/,
    ],
    ['an unknown decoder', { ...tinyTokenizer(), decoder: { type: 'Magic' } }, /Magic/],
    [
      'no vocabulary',
      { ...tinyTokenizer(), added_tokens: [], model: { type: 'BPE', vocab: {}, merges: [] } },
      /expected tokens, got none/,
    ],
    [
      'an id of 2^31',
      { ...tinyTokenizer(), added_tokens: [{ id: 2 ** 31, content: 'x' }] },
      /an id from 0 to 4194304/,
    ],
    [
      'an id that is a text',
      { ...tinyTokenizer(), model: { type: 'BPE', vocab: { a: '0' }, merges: [] } },
      /got "0"/,
    ],
    [
      'an added token without text',
      { ...tinyTokenizer(), added_tokens: [{ id: 1, content: '' }] },
      /its content/,
    ],
    [
      'merges that are a number',
      { ...tinyTokenizer(), model: { type: 'BPE', vocab: {}, merges: 3 } },
      /t\.json/,
    ],
  ])('with %s are refused', (_why, json, message) => {
    const error = thrownBy(() => new Tokenizer(json, {}, 't.json'));
    expect(error).toBeInstanceOf(TokenizerError);
    expect(error.message).toMatch(message);
  });

  it('that are missing are told with what makes them', () => {
    const config = TINY_CONFIGS.olmoe as Json;
    const folder = modelFolder({ config, tensors: neededTensors(config), files: { 'tokenizer.json': '' } });
    const error = thrownBy(() => openModel(folder));
    expect(error).toMatchObject({ code: 'ERR_TOKENIZER' });
    expect(error.message).toMatch(/tokenizer\.json: expected the model's tokenizer, got no such file/);
    expect(error.hint).toMatch(/save_pretrained/);
  });

  it('whose text has no tokens are an error, not a hole in the ids', () => {
    const json = {
      ...tinyTokenizer(),
      model: { type: 'BPE', vocab: { a: 0 }, merges: [], unk_token: '<unk>' },
    };
    const tokenizer = new Tokenizer({ ...json, pre_tokenizer: null, added_tokens: [] }, {}, 't.json');
    expect(thrownBy(() => tokenizer.encode('ab'))).toBeInstanceOf(TokenizerError);
  });
});

describe('checkTokenIds', () => {
  it('accepts ids of the vocabulary and refuses all others with their place', () => {
    expect(() => checkTokenIds([0, 9], 10)).not.toThrow();
    for (const [ids, message] of [
      [[], /at least one token/],
      [[1, 10], /Token 1 of the prompt: expected an id from 0 to 9, got 10/],
      [[-1], /got -1/],
      [[0.5], /got 0\.5/],
    ] as const) {
      const error = thrownBy(() => checkTokenIds(ids, 10));
      expect(error).toBeInstanceOf(PromptError);
      expect(error.message).toMatch(message);
    }
  });
});
