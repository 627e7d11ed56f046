/**
 * The vocabulary of a GGUF file: token texts, kinds, scores and special ids, checked against one another. Read by
 * tokenizer.ts, which makes a tokenizer.json of it.
 */
import { TokenizerError } from '../../errors.js';
import type { GgufMetadata } from './metadata.js';

/** Numbers of `tokenizer.ggml.token_type`. */
export const TOKEN_KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export type Vocabulary = {
  tokens: readonly string[];
  kinds: ArrayLike<number>;
  scores: ArrayLike<number> | undefined;
  bosId: number | undefined;
  eosId: number | undefined;
  unknownId: number | undefined;
  padId: number | undefined;
};

/** `vocabSize`: rows of the embedding. Throws TokenizerError for what is missing or does not fit together. */
export function readVocabulary(metadata: GgufMetadata, vocabSize: number): Vocabulary {
  const texts = metadata.texts('tokenizer.ggml.tokens');
  if (texts === undefined || texts.length === 0) {
    throw new TokenizerError(`${metadata.path}: expected \`tokenizer.ggml.tokens\`, got no vocabulary`);
  }
  if (texts.length > vocabSize) {
    throw new TokenizerError(
      `${metadata.path}: \`tokenizer.ggml.tokens\`: expected at most ${vocabSize} tokens, the rows of the embedding, ` +
        `got ${texts.length}`,
    );
  }
  const tokens = withoutEmpty(texts);
  checkUnique(metadata, tokens);
  const kinds = sameLength(metadata, 'tokenizer.ggml.token_type', tokens.length);
  const id = (name: string) => specialId(metadata, `tokenizer.ggml.${name}_token_id`, tokens.length);
  return {
    tokens,
    kinds: kinds ?? new Uint8Array(tokens.length).fill(TOKEN_KIND.normal),
    scores: sameLength(metadata, 'tokenizer.ggml.scores', tokens.length),
    bosId: id('bos'),
    eosId: id('eos'),
    unknownId: id('unknown'),
    padId: id('padding'),
  };
}

/** Unused ids may have no text; they get one that no text can match. */
function withoutEmpty(texts: readonly string[]): string[] {
  return texts.map((text, id) => (text === '' ? `[EMPTY_${id}]` : text));
}

function checkUnique(metadata: GgufMetadata, tokens: readonly string[]): void {
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    const other = ids.get(token);
    if (other !== undefined) {
      throw new TokenizerError(
        `${metadata.path}: \`tokenizer.ggml.tokens\`: expected each token once, got ${JSON.stringify(token)} as ` +
          `${other} and ${id}`,
      );
    }
    ids.set(token, id);
  }
}

function sameLength(metadata: GgufMetadata, key: string, length: number): ArrayLike<number> | undefined {
  const list = metadata.numbers(key);
  if (list === undefined || list.length === length) return list;
  throw new TokenizerError(
    `${metadata.path}: \`${key}\`: expected ${length} entries, one per token, got ${list.length}`,
  );
}

function specialId(metadata: GgufMetadata, key: string, length: number): number | undefined {
  const id = metadata.number(key);
  if (id === undefined) return undefined;
  if (Number.isInteger(id) && id >= 0 && id < length) return id;
  // Converters write 2^32 - 1 for "none".
  if (id === 2 ** 32 - 1 || id === -1) return undefined;
  throw new TokenizerError(`${metadata.path}: \`${key}\`: expected an id from 0 to ${length - 1}, got ${id}`);
}
