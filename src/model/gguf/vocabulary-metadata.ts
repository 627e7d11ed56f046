/**
 * A tokenizer.json as GGUF metadata: the inverse of tokenizer.ts. Called by convert.ts. A tokenizer that the GGUF keys
 * cannot say in full also goes into the file as it is, where our own reader finds it.
 */
import { TokenizerError } from '../../errors.js';
import { isJsonObject, type JsonObject } from '../json-file.js';
import { fallbackByte } from '../token-pieces.js';
import { PRE_TOKENIZERS } from './pre-tokenizers.js';
import { TOKEN_KIND } from './vocabulary.js';
import type { MetadataValue } from './writer.js';

type Entries = Map<string, MetadataValue>;

export type VocabularySource = {
  tokenizerJson: JsonObject;
  /** Rows of the embedding; ids without a token get an unused one. */
  vocabSize: number;
  bosId: number | undefined;
  eosId: number | undefined;
  unknownId: number | undefined;
  padId: number | undefined;
  /** Whether the tokenizer puts the begin-of-text token in front. */
  addsBos: boolean;
  path: string;
};

/** Throws TokenizerError for tokenizers that are no BPE. */
export function vocabularyMetadata(source: VocabularySource): Entries {
  const { tokenizerJson, path } = source;
  const model = isJsonObject(tokenizerJson.model) ? tokenizerJson.model : {};
  if (!isJsonObject(model.vocab) || !Array.isArray(model.merges)) {
    throw new TokenizerError(`${path}: expected a BPE tokenizer, got ${String(model.type)}`);
  }
  const tokens = tokenTexts(source, model.vocab);
  const merges = model.merges.map((merge) => (Array.isArray(merge) ? merge.join(' ') : String(merge)));
  const byteFallback = model.byte_fallback === true;
  const pre = byteFallback ? 'default' : preTokenizerName(tokenizerJson, model);
  const metadata: Entries = new Map([
    ['tokenizer.ggml.model', { type: 'string', value: byteFallback ? 'llama' : 'gpt2' }],
    ['tokenizer.ggml.pre', { type: 'string', value: pre ?? 'default' }],
    ['tokenizer.ggml.tokens', { type: 'strings', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: tokenKinds(tokenizerJson, tokens, byteFallback) }],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: source.addsBos }],
  ]);
  if (byteFallback)
    metadata.set('tokenizer.ggml.scores', { type: 'f32s', value: scoresOfMerges(tokens, merges) });
  else metadata.set('tokenizer.ggml.merges', { type: 'strings', value: merges });
  if (pre === undefined) {
    metadata.set('tokenizer.huggingface.json', { type: 'string', value: JSON.stringify(tokenizerJson) });
  }
  for (const [name, id] of [
    ['bos', source.bosId],
    ['eos', source.eosId],
    ['unknown', source.unknownId],
    ['padding', source.padId],
  ] as const) {
    if (id !== undefined) metadata.set(`tokenizer.ggml.${name}_token_id`, { type: 'u32', value: id });
  }
  return metadata;
}

function addedTokens(tokenizerJson: JsonObject): JsonObject[] {
  return Array.isArray(tokenizerJson.added_tokens) ? tokenizerJson.added_tokens.filter(isJsonObject) : [];
}

function tokenTexts({ tokenizerJson, vocabSize, path }: VocabularySource, vocab: JsonObject): string[] {
  const tokens = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`);
  const put = (text: string, id: unknown) => {
    if (typeof id !== 'number' || id >= vocabSize) {
      throw new TokenizerError(
        `${path}: expected ids below ${vocabSize}, the rows of the embedding, got ${String(id)}`,
      );
    }
    tokens[id] = text;
  };
  for (const [text, id] of Object.entries(vocab)) put(text, id);
  for (const { content, id } of addedTokens(tokenizerJson)) put(String(content), id);
  return tokens;
}

function tokenKinds(tokenizerJson: JsonObject, tokens: readonly string[], byteFallback: boolean): Int32Array {
  const kinds = Int32Array.from(tokens, (token, id) => {
    if (token === `[PAD${id}]`) return TOKEN_KIND.unused;
    return byteFallback && fallbackByte(token) !== undefined ? TOKEN_KIND.byte : TOKEN_KIND.normal;
  });
  for (const { id, content, special } of addedTokens(tokenizerJson)) {
    if (content === '<unk>') kinds[id as number] = TOKEN_KIND.unknown;
    else kinds[id as number] = special === true ? TOKEN_KIND.control : TOKEN_KIND.userDefined;
  }
  return kinds;
}

/** The earlier a token comes out of a merge, the higher its score; tokens of no merge come last. */
function scoresOfMerges(tokens: readonly string[], merges: readonly string[]): Float32Array {
  const ranks = new Map<string, number>();
  for (const [rank, merge] of merges.entries()) {
    const text = merge.replace(' ', '');
    if (!ranks.has(text)) ranks.set(text, rank);
  }
  return Float32Array.from(tokens, (token, id) => -(ranks.get(token) ?? merges.length + id));
}

/** llama.cpp's name of the tokenizer's splits, normal form and merge rule; undefined where it has none. */
function preTokenizerName(tokenizerJson: JsonObject, model: JsonObject): string | undefined {
  const patterns = splitPatterns(tokenizerJson.pre_tokenizer);
  const normalForm = normalFormOf(tokenizerJson.normalizer);
  if (patterns === undefined || normalForm === undefined) return undefined;
  for (const [name, known] of PRE_TOKENIZERS) {
    const same =
      known.patterns.length === patterns.length &&
      known.patterns.every((pattern, i) => pattern === patterns[i]) &&
      (known.normalForm ?? 'none') === normalForm &&
      (known.ignoreMerges ?? false) === (model.ignore_merges === true);
    if (same) return name;
  }
  return undefined;
}

function normalFormOf(normalizer: unknown): string | undefined {
  if (normalizer === null || normalizer === undefined) return 'none';
  return isJsonObject(normalizer) && typeof normalizer.type === 'string' ? normalizer.type : undefined;
}

const GPT2_PATTERN = PRE_TOKENIZERS.get('gpt-2')?.patterns[0] ?? '';

/** The regular expressions that a pre-tokenizer splits by; undefined where it does something else. */
function splitPatterns(preTokenizer: unknown): string[] | undefined {
  if (!isJsonObject(preTokenizer)) return undefined;
  const steps = preTokenizer.type === 'Sequence' ? preTokenizer.pretokenizers : [preTokenizer];
  if (!Array.isArray(steps)) return undefined;
  const patterns: string[] = [];
  for (const step of steps) {
    const pattern = isJsonObject(step) ? splitPattern(step) : undefined;
    if (pattern === undefined) return undefined;
    if (pattern !== '') patterns.push(pattern);
  }
  return patterns;
}

/** '' for a step that only maps bytes to characters. */
function splitPattern(step: JsonObject): string | undefined {
  if (step.type === 'ByteLevel') {
    if (step.add_prefix_space === true) return undefined;
    return step.use_regex === false ? '' : GPT2_PATTERN;
  }
  if (step.type === 'Digits') return step.individual_digits === true ? '\\p{N}' : '\\p{N}+';
  if (step.type !== 'Split' || step.behavior !== 'Isolated' || step.invert === true) return undefined;
  const regex = isJsonObject(step.pattern) ? step.pattern.Regex : undefined;
  return typeof regex === 'string' ? regex : undefined;
}
