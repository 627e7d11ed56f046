/**
 * GGUF files that are well-formed but make no model: missing and wrong metadata, contradicting tensors, vocabularies that
 * do not fit, each with its typed error; and metadata that old or unusual converters write.
 */
import { describe, expect, it } from 'vitest';
import { ModelFormatError, type NearmoeError, TokenizerError } from '../../../src/errors.js';
import { ConfigReader } from '../../../src/model/config.js';
import { familyOf } from '../../../src/model/families/registry.js';
import { GGUF_NAMES } from '../../../src/model/gguf/names.js';
import { openModel } from '../../../src/model/open-model.js';
import { neededWeights } from '../../../src/model/weights.js';
import { ggufFile, type Metadata } from './gguf-bytes.js';
import { newFile, type TestTensor, TINY_CONFIGS, thrownBy } from './tiny-checkpoint.js';

const TOKENS = ['<unk>', '<s>', '</s>', 'a', 'b', 'ab', '\u2581', '<|im_end|>'];

const MIXTRAL: Metadata = {
  'general.architecture': 'llama',
  'llama.block_count': 2,
  'llama.context_length': 64,
  'llama.embedding_length': 8,
  'llama.feed_forward_length': 5,
  'llama.attention.head_count': 2,
  'llama.attention.head_count_kv': 1,
  'llama.attention.layer_norm_rms_epsilon': 0.00001,
  'llama.expert_count': 3,
  'llama.expert_used_count': 2,
  'tokenizer.ggml.model': 'llama',
  'tokenizer.ggml.tokens': TOKENS,
  'tokenizer.ggml.token_type': [2, 3, 3, 1, 1, 1, 1, 3],
  'tokenizer.ggml.scores': [0, 0, 0, -3, -4, -1, -5, 0],
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
};

/** Tensors of a tiny Mixtral under their GGUF names, experts stacked or (as files of 2023 have it) one by one. */
function tensorsOf(stacked = true): TestTensor[] {
  const reader = new ConfigReader(TINY_CONFIGS.mixtral ?? {}, 'config.json');
  const spec = familyOf(reader).readSpec(reader);
  const tensors = new Map<string, TestTensor>();
  for (const { role, layer, expert, rows, cols } of neededWeights(spec)) {
    const names = (GGUF_NAMES[role] ?? []).filter((name) => typeof name === 'string');
    const template = (stacked ? names[0] : names.at(-1)) ?? '';
    const name = template.replace('{layer}', `${layer}`).replace('{expert}', `${expert}`);
    const matrix = rows === 1 ? [cols] : [rows, cols];
    tensors.set(name, { name, shape: expert >= 0 && stacked ? [3, ...matrix] : matrix });
  }
  return [...tensors.values()];
}

function open(
  changes: Metadata,
  remove: readonly string[] = [],
  tensors: readonly TestTensor[] = tensorsOf(),
) {
  const metadata = { ...MIXTRAL, ...changes };
  for (const key of remove) delete metadata[key];
  return openModel(newFile('model.gguf', ggufFile(metadata, tensors)));
}

describe('metadata', () => {
  it('of a Mixtral makes one', () => {
    const { spec, weights, generation, tokenizer } = open({});
    expect(spec).toMatchObject({ architecture: 'mixtral', hiddenSize: 8, vocabSize: 300, maxPositions: 64 });
    expect(spec.ropes).toEqual([
      { style: 'interleaved', rotaryDim: 4, theta: 10000, scaling: { type: 'default' } },
    ]);
    expect(weights.length).toBeGreaterThan(20);
    expect(tokenizer.encode('ab')).toEqual([1, 6, 5]);
    expect(generation.eosTokenIds).toEqual([2, 7]);
  });

  it('of 2023 has one tensor per expert and a linear scale', () => {
    const { spec, weights } = open({ 'llama.rope.scale_linear': 4 }, [], tensorsOf(false));
    expect(spec.ropes[0]?.scaling).toEqual({ type: 'linear', factor: 4 });
    expect(weights.find(({ expert, role }) => expert === 2 && role === 'expertUp')).toMatchObject({
      tensor: 'blk.0.ffn_up.2.weight',
      firstRow: 0,
    });
  });

  it('may name numbers per layer as long as they are one', () => {
    expect(open({ 'llama.attention.head_count_kv': [1, 1] }).spec.layers[1]?.attention.numKvHeads).toBe(1);
    const error = thrownBy(() => open({ 'llama.attention.head_count_kv': [1, 2] }));
    expect(error.message).toMatch(/head_count_kv: expected the same number for all layers, got 1 and 2/);
  });

  it('scales rotary frequencies by factors that lie beside the weights', () => {
    const factors = { name: 'rope_freqs.weight', shape: [2] };
    // The file's factors are zeros, which no frequency can be divided by.
    const error = thrownBy(() => open({}, [], [...tensorsOf(), factors]));
    expect(error.message).toMatch(/short_factor: expected a list of 2 numbers above 0/);
  });

  it.each<[string, Metadata, string[], RegExp]>([
    [
      'no architecture',
      {},
      ['general.architecture'],
      /general\.architecture: expected one of qwen3moe, .*got nothing/,
    ],
    ['an unknown architecture', { 'general.architecture': 'mamba' }, [], /granitemoe, .*got "mamba"/],
    ['an architecture that is a number', { 'general.architecture': 3 }, [], /expected a string, got 3/],
    ['no layers', {}, ['llama.block_count'], /llama\.block_count: expected a number, got no such key/],
    [
      'a billion layers',
      { 'llama.block_count': 1e9 },
      [],
      /llama\.block_count: expected an integer from 1 to 1024/,
    ],
    ['no heads', {}, ['llama.attention.head_count'], /head_count: expected a number, got no such key/],
    [
      'a text for a number',
      { 'llama.embedding_length': '8' },
      [],
      /llama\.embedding_length: expected an integer .*got "8"/,
    ],
    [
      'no experts',
      { 'llama.expert_count': 0 },
      [],
      /llama\.expert_count: expected at least 1: only mixtures/,
    ],
    ['no expert key', {}, ['llama.expert_count'], /llama\.expert_count: expected a number, got no such key/],
    ['too many experts per token', { 'llama.expert_used_count': 4 }, [], /`llama\.expert_count` = 3, got 4/],
    ['no eps', {}, ['llama.attention.layer_norm_rms_epsilon'], /layer_norm_rms_epsilon: expected a number/],
    [
      'sigmoid routing',
      { 'llama.expert_gating_func': 2 },
      [],
      /expert_gating_func: expected one of 0, 1, got 2/,
    ],
    [
      'half-rotated heads',
      { 'llama.rope.dimension_count': 2 },
      [],
      /dimension_count: expected 1 \(whole heads/,
    ],
    [
      'two head sizes',
      { 'llama.attention.key_length': 4, 'llama.attention.value_length': 6 },
      [],
      /expected 4, the key/,
    ],
    [
      'an unknown scaling',
      { 'llama.rope.scaling.type': 'spiral' },
      [],
      /rope\.scaling\.type: expected none, linear/,
    ],
    ['yarn without a factor', { 'llama.rope.scaling.type': 'yarn' }, [], /factor: expected a number/],
  ])('with %s is refused', (_why, changes, remove, message) => {
    const error = thrownBy(() => open(changes, remove));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
  });
});

describe('tensors', () => {
  it('that are missing, misshapen or left over are named', () => {
    const all = tensorsOf();
    const without = all.filter(({ name }) => name !== 'blk.1.ffn_down_exps.weight');
    expect(thrownBy(() => open({}, [], without))).toMatchObject({
      code: 'ERR_WEIGHT_MISSING',
      field: 'blk.1.ffn_down_exps.weight',
    });
    const wrong = all.map((tensor) =>
      tensor.name === 'blk.0.attn_k.weight' ? { ...tensor, shape: [8, 8] } : tensor,
    );
    expect(thrownBy(() => open({}, [], wrong)).message).toMatch(
      /blk\.0\.attn_k\.weight: expected shape \[4,8\]/,
    );
    const more = [...all, { name: 'blk.0.attn_q.scale', shape: [1] }];
    expect(thrownBy(() => open({}, [], more))).toMatchObject({
      code: 'ERR_WEIGHT_SURPLUS',
      field: 'blk.0.attn_q.scale',
    });
  });
});

describe('vocabularies', () => {
  const refusal = (changes: Metadata, remove: string[] = []) =>
    thrownBy(() => open(changes, remove)) as Error as NearmoeError;

  it.each<[string, Metadata, string[], RegExp]>([
    ['no tokens', {}, ['tokenizer.ggml.tokens'], /expected `tokenizer\.ggml\.tokens`, got no vocabulary/],
    [
      'an unknown kind',
      { 'tokenizer.ggml.model': 'rwkv' },
      [],
      /tokenizer\.ggml\.model`: expected gpt2, llama or gemma4, got "rwkv"/,
    ],
    ['no kind', {}, ['tokenizer.ggml.model'], /expected gpt2, llama or gemma4, got nothing/],
    [
      'a token twice',
      { 'tokenizer.ggml.tokens': [...TOKENS.slice(1), 'a'] },
      [],
      /each token once, got "a" as 2 and 7/,
    ],
    [
      'more tokens than rows',
      { 'tokenizer.ggml.tokens': Array.from({ length: 301 }, (_, i) => `t${i}`) },
      [],
      /at most 300/,
    ],
    [
      'kinds for fewer tokens',
      { 'tokenizer.ggml.token_type': [1] },
      [],
      /token_type`: expected 8 entries, .*got 1/,
    ],
    ['no scores', {}, ['tokenizer.ggml.scores'], /expected `tokenizer\.ggml\.scores`, got none/],
    [
      'a special id past the end',
      { 'tokenizer.ggml.eos_token_id': 8 },
      [],
      /eos_token_id`: expected an id from 0 to 7, got 8/,
    ],
    ['no merges', { 'tokenizer.ggml.model': 'gpt2' }, [], /expected `tokenizer\.ggml\.merges`, got none/],
    [
      'an unknown pre-tokenizer',
      { 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'x', 'tokenizer.ggml.merges': ['a b'] },
      [],
      /tokenizer\.ggml\.pre`: expected one of default, gpt-2, .*got x/,
    ],
    [
      'a merge of one token',
      { 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.merges': ['a b', 'ab'] },
      [],
      /merges\[1\]`: expected two tokens with a space between, got "ab"/,
    ],
  ])('with %s are refused', (_why, changes, remove, message) => {
    const error = refusal(changes, remove);
    expect(error).toBeInstanceOf(TokenizerError);
    expect(error.message).toMatch(message);
  });

  it('may lack special ids, which converters write as 2^32 - 1', () => {
    const { tokenizer } = open({ 'tokenizer.ggml.bos_token_id': 2 ** 32 - 1 });
    expect(tokenizer.specialTokens.bos_token).toBeUndefined();
    expect(tokenizer.encode('ab')).toEqual([6, 5]);
  });

  it('may come with the tokenizer.json that they were made from', () => {
    const json = { model: { type: 'BPE', vocab: { z: 3 }, merges: [] }, added_tokens: [] };
    const { tokenizer } = open({ 'tokenizer.huggingface.json': JSON.stringify(json) });
    expect(tokenizer.encode('z')).toEqual([3]);
    expect(refusal({ 'tokenizer.huggingface.json': '{' }).message).toMatch(/expected JSON/);
  });

  it('keep tokens whose names are those of object properties', () => {
    const tokens = ['<unk>', '<s>', '</s>', '__proto__', 'constructor', 'x'];
    const vocabulary: Metadata = {
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.token_type': [2, 3, 3, 1, 1, 1],
      'tokenizer.ggml.scores': [0, 0, 0, -1, -2, -3],
    };
    const { tokenizer } = open(vocabulary);
    expect(tokens.map((token) => tokenizer.tokenId(token))).toEqual([0, 1, 2, 3, 4, 5]);
    expect(tokenizer.decode([3, 4])).toBe('__proto__constructor');
  });
});
