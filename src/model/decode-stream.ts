/**
 * Token ids to text, one token at a time, never half a character. Made by Tokenizer.decodeStream for each sequence
 * that is generated. Cost per token does not depend on how many came before.
 */
import { byteLevelBytes, fallbackByte, type PieceDecoder } from './token-pieces.js';

/** What a stream needs of its tokenizer. */
export type TokenSource = {
  /** Text of a token in the vocabulary, undefined for ids without one. */
  tokenText(id: number): string | undefined;
  isAdded(id: number): boolean;
  isSpecial(id: number): boolean;
  /** Decodes a list in one go, special tokens included; for decoders without a token-by-token form. */
  decodeAll(ids: number[]): string;
};

export type DecodeStreamOptions = {
  /** Leaves tokens such as <|im_end|> out of the text. Default true. */
  skipSpecialTokens?: boolean | undefined;
  /** The ids continue a text: a leading space that decoders drop at the start of a text is kept. Default false. */
  continuation?: boolean;
};

export type DecodeStream = {
  /** Text that became certain with this token; '' while a character is incomplete. */
  push(id: number): string;
  /** Text of an incomplete character at the end, as U+FFFD. The stream then starts anew. */
  flush(): string;
};

export function createDecodeStream(
  source: TokenSource,
  pieces: PieceDecoder | undefined,
  options: DecodeStreamOptions,
): DecodeStream {
  return pieces === undefined ? new WindowStream(source, options) : new PieceStream(source, pieces, options);
}

const EMPTY = new Uint8Array(0);

/** For decoders that work token by token: bytes run through one streaming UTF-8 decoder. */
class PieceStream implements DecodeStream {
  readonly #source: TokenSource;
  readonly #pieces: PieceDecoder;
  readonly #skipSpecial: boolean;
  readonly #continuation: boolean;
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  readonly #oneByte = new Uint8Array(1);
  #stripLeft: number;

  constructor(source: TokenSource, pieces: PieceDecoder, options: DecodeStreamOptions) {
    this.#source = source;
    this.#pieces = pieces;
    this.#skipSpecial = options.skipSpecialTokens ?? true;
    this.#continuation = options.continuation ?? false;
    this.#stripLeft = this.#continuation ? 0 : pieces.stripStart.count;
  }

  push(id: number): string {
    const token = this.#source.tokenText(id);
    if (token === undefined || (this.#skipSpecial && this.#source.isSpecial(id))) return '';
    return this.#stripped(this.#textOf(id, token));
  }

  flush(): string {
    const text = this.#stripped(this.#endBytes());
    this.#stripLeft = this.#continuation ? 0 : this.#pieces.stripStart.count;
    return text;
  }

  #textOf(id: number, token: string): string {
    if (this.#pieces.kind === 'byte-level') {
      if (this.#source.isAdded(id)) return this.#endBytes() + token;
      return this.#utf8.decode(byteLevelBytes(token), { stream: true });
    }
    let text = token;
    for (const [from, to] of this.#pieces.replacements) text = text.replaceAll(from, to);
    const byte = this.#pieces.byteFallback ? fallbackByte(text) : undefined;
    if (byte === undefined) return this.#endBytes() + text;
    this.#oneByte[0] = byte;
    return this.#utf8.decode(this.#oneByte, { stream: true });
  }

  #endBytes(): string {
    return this.#utf8.decode(EMPTY);
  }

  #stripped(text: string): string {
    const { content } = this.#pieces.stripStart;
    let rest = text;
    while (this.#stripLeft > 0 && rest !== '') {
      if (!rest.startsWith(content)) {
        this.#stripLeft = 0;
        break;
      }
      rest = rest.slice(content.length);
      this.#stripLeft--;
    }
    return rest;
  }
}

/** Longest run of tokens that can form one character: four bytes, with room for tokens without text. */
const MAX_HELD_TOKENS = 8;

/** For all other decoders: decodes the last few tokens with and without the new one and takes the difference. */
class WindowStream implements DecodeStream {
  readonly #source: TokenSource;
  readonly #skipSpecial: boolean;
  readonly #continuation: boolean;
  /** Tokens whose text is out, as context, followed by tokens held back. */
  #window: number[] = [];
  #heldFrom = 0;
  /** Text of the context alone. */
  #done = '';
  #first = true;

  constructor(source: TokenSource, options: DecodeStreamOptions) {
    this.#source = source;
    this.#skipSpecial = options.skipSpecialTokens ?? true;
    this.#continuation = options.continuation ?? false;
  }

  push(id: number): string {
    if (this.#source.tokenText(id) === undefined || (this.#skipSpecial && this.#source.isSpecial(id)))
      return '';
    // In a continuation the first token doubles as its own context, so that it is not treated as a text's start.
    if (this.#first && this.#continuation) this.#context([id]);
    this.#first = false;
    this.#window.push(id);
    const text = this.#source.decodeAll(this.#window);
    const held = this.#window.length - this.#heldFrom;
    if (text.endsWith('\ufffd') && held < MAX_HELD_TOKENS) return '';
    return this.#take(text);
  }

  flush(): string {
    const text = this.#heldFrom < this.#window.length ? this.#take(this.#source.decodeAll(this.#window)) : '';
    this.#context([]);
    this.#first = true;
    return text;
  }

  #take(text: string): string {
    const fresh = text.slice(this.#done.length);
    this.#context(this.#window.slice(this.#heldFrom));
    return fresh;
  }

  #context(ids: number[]): void {
    this.#window = [...ids];
    this.#heldFrom = ids.length;
    this.#done = ids.length === 0 ? '' : this.#source.decodeAll(ids);
  }
}
