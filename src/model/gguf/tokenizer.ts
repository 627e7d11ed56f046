/**
 * Makes a tokenizer.json out of a GGUF file's metadata, so that one library serves both formats: byte-level BPE
 * (`gpt2`) with its pre-tokenizer, and BPE over spaces made visible with scores (`llama`) or merges (`gemma4`). Called by open-gguf.ts.
 */
import { describeValue, TokenizerError } from '../../errors.js';
import { type JsonObject, parseJsonObject } from '../json-file.js';
import { Tokenizer } from '../tokenizer.js';
import type { GgufMetadata } from './metadata.js';
import { PRE_TOKENIZERS, type PreTokenizer } from './pre-tokenizers.js';
import { mergesOfScores } from './score-merges.js';
import { readVocabulary, TOKEN_KIND, type Vocabulary } from './vocabulary.js';

/** `vocabSize`: rows of the embedding. Throws TokenizerError, and ModelFormatError for keys of a wrong type. */
export function readGgufTokenizer(metadata: GgufMetadata, vocabSize: number): Tokenizer {
  const vocabulary = readVocabulary(metadata, vocabSize);
  const json = metadata.text('tokenizer.huggingface.json');
  const tokenizer =
    json === undefined ? tokenizerJson(metadata, vocabulary) : parseJsonObject(json, metadata.path);
  return new Tokenizer(tokenizer, tokenizerConfig(vocabulary), metadata.path);
}

function tokenizerJson(metadata: GgufMetadata, vocabulary: Vocabulary): JsonObject {
  const kind = metadata.text('tokenizer.ggml.model');
  if (kind === 'gpt2') return byteLevelJson(metadata, vocabulary);
  if (kind === 'llama') return sentencePieceJson(metadata, vocabulary, scoredMerges(metadata, vocabulary));
  if (kind === 'gemma4') return sentencePieceJson(metadata, vocabulary, readMerges(metadata));
  throw new TokenizerError(
    `${metadata.path}: \`tokenizer.ggml.model\`: expected gpt2, llama or gemma4, got ${describeValue(kind)}`,
  );
}

function readMerges(metadata: GgufMetadata): [string, string][] {
  const merges = metadata.texts('tokenizer.ggml.merges');
  if (merges === undefined)
    throw new TokenizerError(`${metadata.path}: expected \`tokenizer.ggml.merges\`, got none`);
  return merges.map((merge, i) => mergePair(metadata, merge, i));
}

function scoredMerges(metadata: GgufMetadata, { tokens, scores, kinds }: Vocabulary): [string, string][] {
  if (scores !== undefined) return mergesOfScores(tokens, scores, kinds);
  throw new TokenizerError(`${metadata.path}: expected \`tokenizer.ggml.scores\`, got none`);
}

function byteLevelJson(metadata: GgufMetadata, vocabulary: Vocabulary): JsonObject {
  const preTokenizer = readPreTokenizer(metadata);
  const merges = readMerges(metadata);
  const prefix = metadata.flag('tokenizer.ggml.add_space_prefix') ?? false;
  return {
    added_tokens: addedTokens(vocabulary),
    normalizer: preTokenizer.normalForm === undefined ? null : { type: preTokenizer.normalForm },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        ...preTokenizer.patterns.map((pattern) => ({
          type: 'Split',
          pattern: { Regex: pattern },
          behavior: 'Isolated',
          invert: false,
        })),
        { type: 'ByteLevel', add_prefix_space: prefix, trim_offsets: false, use_regex: false },
      ],
    },
    post_processor: postProcessor(metadata, vocabulary, preTokenizer.addBos ?? false),
    decoder: { type: 'ByteLevel', add_prefix_space: prefix, trim_offsets: false, use_regex: false },
    model: {
      type: 'BPE',
      vocab: idsByText(vocabulary),
      merges,
      ignore_merges: preTokenizer.ignoreMerges ?? false,
    },
  };
}

function readPreTokenizer(metadata: GgufMetadata): PreTokenizer {
  const name = metadata.text('tokenizer.ggml.pre') ?? 'default';
  const preTokenizer = PRE_TOKENIZERS.get(name);
  if (preTokenizer !== undefined) return preTokenizer;
  throw new TokenizerError(
    `${metadata.path}: \`tokenizer.ggml.pre\`: expected one of ${[...PRE_TOKENIZERS.keys()].join(', ')}, got ${name}`,
  );
}

/** "left right" as a pair; neither half is empty. */
function mergePair(metadata: GgufMetadata, merge: string, index: number): [string, string] {
  const space = merge.indexOf(' ', 1);
  if (space < 1 || space === merge.length - 1) {
    throw new TokenizerError(
      `${metadata.path}: \`tokenizer.ggml.merges[${index}]\`: expected two tokens with a space between, got ` +
        describeValue(merge),
    );
  }
  return [merge.slice(0, space), merge.slice(space + 1)];
}

const SPACE = '\u2581';

function sentencePieceJson(
  metadata: GgufMetadata,
  vocabulary: Vocabulary,
  merges: [string, string][],
): JsonObject {
  const prefix = metadata.flag('tokenizer.ggml.add_space_prefix') ?? true;
  const replaceSpaces = { type: 'Replace', pattern: { String: ' ' }, content: SPACE };
  const steps = [
    { type: 'Replace', pattern: { String: SPACE }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
    ...(prefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
  ];
  const unknown = vocabulary.tokens[vocabulary.unknownId ?? vocabulary.tokens.indexOf('<unk>')];
  return {
    added_tokens: addedTokens(vocabulary),
    normalizer: {
      type: 'Sequence',
      normalizers: prefix ? [{ type: 'Prepend', prepend: SPACE }, replaceSpaces] : [replaceSpaces],
    },
    pre_tokenizer: null,
    post_processor: postProcessor(metadata, vocabulary, true),
    decoder: { type: 'Sequence', decoders: steps },
    model: {
      type: 'BPE',
      vocab: idsByText(vocabulary),
      merges,
      byte_fallback: true,
      fuse_unk: true,
      unk_token: unknown ?? null,
    },
  };
}

/** Own properties also for tokens such as `__proto__`. */
function idsByText({ tokens }: Vocabulary): JsonObject {
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

function addedTokens({ tokens, kinds }: Vocabulary): JsonObject[] {
  const added: JsonObject[] = [];
  for (const [id, content] of tokens.entries()) {
    const kind = kinds[id];
    const special = kind === TOKEN_KIND.control || kind === TOKEN_KIND.unknown;
    if (!special && kind !== TOKEN_KIND.userDefined) continue;
    added.push({ id, content, special, normalized: false, single_word: false, lstrip: false, rstrip: false });
  }
  return added;
}

function postProcessor(
  metadata: GgufMetadata,
  vocabulary: Vocabulary,
  addBosDefault: boolean,
): JsonObject | null {
  const before = metadata.flag('tokenizer.ggml.add_bos_token') ?? addBosDefault;
  const after = metadata.flag('tokenizer.ggml.add_eos_token') ?? false;
  const special = (wanted: boolean, id: number | undefined) =>
    wanted && id !== undefined ? [{ SpecialToken: { id: vocabulary.tokens[id], type_id: 0 } }] : [];
  const single = [
    ...special(before, vocabulary.bosId),
    { Sequence: { id: 'A', type_id: 0 } },
    ...special(after, vocabulary.eosId),
  ];
  return single.length === 1
    ? null
    : { type: 'TemplateProcessing', single, pair: single, special_tokens: {} };
}

function tokenizerConfig({ tokens, bosId, eosId, unknownId, padId }: Vocabulary): JsonObject {
  const text = (id: number | undefined) => (id === undefined ? null : tokens[id]);
  return {
    bos_token: text(bosId),
    eos_token: text(eosId),
    unk_token: text(unknownId),
    pad_token: text(padId),
  };
}
