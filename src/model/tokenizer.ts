/**
 * The model's tokenizer: text to ids by @huggingface/tokenizers from tokenizer.json, ids to text by our own stream.
 * Made by open-model.ts (for GGUF from a tokenizer.json built out of its metadata). Used in the engine's worker.
 * Knows nothing of chat templates or of the model's vocabulary size, which may be larger than the tokenizer's.
 */
import { join } from 'node:path';
import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers';
import { describeValue, PromptError, TokenizerError } from '../errors.js';
import { createDecodeStream, type DecodeStream, type DecodeStreamOptions } from './decode-stream.js';
import { isJsonObject, type JsonObject, readJsonObject } from './json-file.js';
import { type PieceDecoder, pieceDecoder, tokenBytes } from './token-pieces.js';
import { checkedTokenizerJson } from './tokenizer-json.js';

export type EncodeOptions = {
  /** Adds what the tokenizer's post-processor adds (a begin-of-text token, for instance). Default true. */
  addSpecialTokens?: boolean;
};

/** Names of the special tokens that tokenizer_config.json may define. */
const SPECIAL_NAMES = ['bos_token', 'eos_token', 'unk_token', 'pad_token'] as const;
export type SpecialTokenName = (typeof SPECIAL_NAMES)[number];

export class Tokenizer {
  /** Texts of the special tokens, as chat templates want them. */
  readonly specialTokens: Readonly<Partial<Record<SpecialTokenName, string>>>;
  /** Highest id + 1. */
  readonly vocabSize: number;
  readonly #hub: HubTokenizer;
  readonly #added: ReadonlyMap<number, { special: boolean }>;
  readonly #pieces: PieceDecoder | undefined;

  /** From parsed files; `path` is named in errors. Throws TokenizerError. */
  constructor(tokenizerJson: JsonObject, tokenizerConfig: JsonObject, path: string) {
    const { json, highestId } = checkedTokenizerJson(tokenizerJson, path);
    try {
      this.#hub = new HubTokenizer(json, tokenizerConfig);
    } catch (cause) {
      throw new TokenizerError(`${path}: ${describeValue(cause)}`, { cause });
    }
    this.#added = this.#hub.get_added_tokens_decoder();
    this.#pieces = pieceDecoder(json.decoder);
    this.specialTokens = readSpecialTokens(tokenizerConfig);
    this.vocabSize = highestId + 1;
  }

  /** Reads tokenizer.json and, where it is there, tokenizer_config.json. Throws TokenizerError, ModelFormatError. */
  static fromFolder(folder: string): Tokenizer {
    const path = join(folder, 'tokenizer.json');
    const json = readJsonObject(path);
    if (json === undefined) {
      throw new TokenizerError(`${path}: expected the model's tokenizer, got no such file`, {
        hint: 'Save it with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(folder).',
      });
    }
    return new Tokenizer(json, readJsonObject(join(folder, 'tokenizer_config.json')) ?? {}, path);
  }

  /** Throws TokenizerError where a piece of the text has no token and the vocabulary no unknown-token. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    let ids: number[];
    try {
      ids = this.#hub.encode(text, { add_special_tokens: options.addSpecialTokens ?? true }).ids;
    } catch (cause) {
      throw new TokenizerError(`The text could not be tokenized: ${describeValue(cause)}`, { cause });
    }
    if (ids.some((id) => !Number.isInteger(id))) {
      throw new TokenizerError('The text holds characters that the vocabulary has no token for');
    }
    return ids;
  }

  /** Text of a list of ids; the same that a stream yields. Ids without a token have no text. */
  decode(ids: readonly number[], options: DecodeStreamOptions = {}): string {
    const stream = this.decodeStream(options);
    let text = '';
    for (const id of ids) text += stream.push(id);
    return text + stream.flush();
  }

  decodeStream(options: DecodeStreamOptions = {}): DecodeStream {
    return createDecodeStream(this, this.#pieces, options);
  }

  tokenText(id: number): string | undefined {
    return this.#hub.id_to_token(id);
  }

  /** Bytes that a token adds to a text; none for ids without one. Several tokens may form one character. */
  tokenBytes(id: number): Uint8Array {
    const token = this.tokenText(id);
    if (token === undefined) return new Uint8Array(0);
    if (this.#pieces === undefined || this.isAdded(id)) return new TextEncoder().encode(this.decodeAll([id]));
    return tokenBytes(this.#pieces, token);
  }

  /**
   * Spaces that decoding drops at the start of a text. Undefined where the decoder has no form by which each token
   * has its own bytes, so that tokenBytes does not add up to the text.
   */
  get droppedSpaces(): number | undefined {
    if (this.#pieces === undefined) return undefined;
    const { content, count } = this.#pieces.stripStart;
    return content === ' ' ? count : 0;
  }

  tokenId(text: string): number | undefined {
    return this.#hub.token_to_id(text);
  }

  isAdded(id: number): boolean {
    return this.#added.has(id);
  }

  isSpecial(id: number): boolean {
    return this.#added.get(id)?.special ?? false;
  }

  /** Texts of all special tokens by id. */
  specialTexts(): Map<number, string> {
    const texts = new Map<number, string>();
    for (const [id, { special }] of this.#added) {
      const text = special ? this.tokenText(id) : undefined;
      if (text !== undefined) texts.set(id, text);
    }
    return texts;
  }

  /** Id of a special token, where the tokenizer defines it. */
  specialTokenId(name: SpecialTokenName): number | undefined {
    const text = this.specialTokens[name];
    return text === undefined ? undefined : this.tokenId(text);
  }

  /** Decodes by the library alone, special tokens included. */
  decodeAll(ids: number[]): string {
    return ids.length === 0 ? '' : this.#hub.decode(ids, { clean_up_tokenization_spaces: false });
  }
}

function readSpecialTokens(config: JsonObject): Partial<Record<SpecialTokenName, string>> {
  const tokens: Partial<Record<SpecialTokenName, string>> = {};
  for (const name of SPECIAL_NAMES) {
    const value = config[name];
    // Older files describe the token as an object with its matching rules.
    const text = isJsonObject(value) ? value.content : value;
    if (typeof text === 'string') tokens[name] = text;
  }
  return tokens;
}

/** Throws PromptError for an empty list and for ids that the model has no embedding for. */
export function checkTokenIds(ids: ArrayLike<number>, vocabSize: number): void {
  if (ids.length === 0) throw new PromptError('Expected a prompt of at least one token, got an empty one');
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (id === undefined || !Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new PromptError(`Token ${i} of the prompt: expected an id from 0 to ${vocabSize - 1}, got ${id}`);
    }
  }
}
