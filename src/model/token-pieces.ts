/**
 * How a tokenizer's `decoder` section turns token texts into output, reduced to steps that work token by token.
 * Built once per tokenizer, used by decode-stream.ts. Decoders that need to see several tokens at once have no such
 * form; the stream then decodes a small window again for each token.
 */
import { isJsonObject, type JsonObject } from './json-file.js';

export type PieceDecoder = {
  /** 'byte-level': a token's characters stand for bytes (GPT-2). 'text': they are text, after replacements. */
  kind: 'byte-level' | 'text';
  /** String replacements in each token. */
  replacements: [from: string, to: string][];
  /** Tokens of the form <0xAB> stand for one byte. */
  byteFallback: boolean;
  /** Removed from the start of the whole text, at most `count` times. */
  stripStart: { content: string; count: number };
};

/** The steps of a `decoder` section, or undefined where it has no token-by-token form. */
export function pieceDecoder(decoder: unknown): PieceDecoder | undefined {
  const pieces: PieceDecoder = {
    kind: 'text',
    replacements: [],
    byteFallback: false,
    stripStart: { content: '', count: 0 },
  };
  if (!isJsonObject(decoder)) return undefined;
  const steps = decoder.type === 'Sequence' ? decoder.decoders : [decoder];
  if (!Array.isArray(steps) || !steps.every(isJsonObject)) return undefined;
  let fused = false;
  for (const step of steps) {
    if (!applyStep(pieces, step, fused)) return undefined;
    fused ||= step.type === 'Fuse';
  }
  return pieces;
}

function applyStep(pieces: PieceDecoder, step: JsonObject, fused: boolean): boolean {
  switch (step.type) {
    case 'ByteLevel':
      pieces.kind = 'byte-level';
      return pieces.replacements.length === 0;
    case 'Replace': {
      const from = isJsonObject(step.pattern) ? step.pattern.String : undefined;
      if (typeof from !== 'string' || typeof step.content !== 'string' || fused) return false;
      pieces.replacements.push([from, step.content]);
      return true;
    }
    case 'ByteFallback':
      pieces.byteFallback = true;
      return !fused;
    case 'Fuse':
      return true;
    case 'Strip':
      return applyStrip(pieces, step, fused);
    case 'Metaspace': {
      const from = typeof step.replacement === 'string' ? step.replacement : '\u2581';
      pieces.replacements.push([from, ' ']);
      pieces.stripStart = { content: ' ', count: step.prepend_scheme === 'never' ? 0 : 1 };
      return !fused;
    }
    default:
      return false;
  }
}

/** Only a strip of the whole, fused text can be done on the fly; one per token or at the end cannot. */
function applyStrip(pieces: PieceDecoder, step: JsonObject, fused: boolean): boolean {
  const { content, start, stop } = step;
  if (typeof content !== 'string' || typeof start !== 'number' || stop !== 0 || !fused) return false;
  pieces.stripStart = { content, count: start };
  return true;
}

/** GPT-2's table: printable characters stand for themselves, the other bytes for characters from U+0100 on. */
function gpt2Table(): Map<string, number> {
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return table;
}

export const CHAR_TO_BYTE: ReadonlyMap<string, number> = gpt2Table();

const encoder = new TextEncoder();

/** Bytes of a byte-level token; a token with characters outside of the table stands for its own UTF-8 bytes. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  let count = 0;
  for (const char of token) {
    const byte = CHAR_TO_BYTE.get(char);
    if (byte === undefined) return encoder.encode(token);
    bytes[count++] = byte;
  }
  return bytes.subarray(0, count);
}

/** The byte that a token like <0xAB> stands for. */
export function fallbackByte(token: string): number | undefined {
  if (token.length !== 6) return undefined;
  const digits = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

/** Bytes of one token that is in the vocabulary itself, as `pieces` turns it into text. */
export function tokenBytes(pieces: PieceDecoder, token: string): Uint8Array {
  if (pieces.kind === 'byte-level') return byteLevelBytes(token);
  let text = token;
  for (const [from, to] of pieces.replacements) text = text.replaceAll(from, to);
  const byte = pieces.byteFallback ? fallbackByte(text) : undefined;
  return byte === undefined ? encoder.encode(text) : Uint8Array.of(byte);
}
