/**
 * Structured output of one request: tells the sampler which tokens may come next and follows the one that was chosen.
 * Made by a Constraints, one per model, which compiles the grammar of each response format once and keeps the last few.
 * Called by engine/request.ts, in the engine's worker.
 */
import { Automaton, type Configuration } from './automaton.js';
import { grammarError, repeat, SPECIAL_BYTE, sequence, specialBytes, text } from './expression.js';
import { formatGrammar } from './format-grammar.js';
import { Graph } from './graph.js';
import type { ResponseFormat } from './response-format.js';
import { type TokenMask, TokenMasks } from './token-masks.js';
import { Vocabulary } from './vocabulary.js';

/** Where errors say that they come from. */
const PLACE = 'responseFormat';
/** Grammars kept: compiling one again takes milliseconds, its masks some more. */
const KEPT_GRAMMARS = 16;
const NO_BYTES = new Uint8Array(0);

export class Constraint {
  #masks: TokenMasks;
  #automaton: Automaton;
  #at: Configuration;

  constructor(automaton: Automaton, masks: TokenMasks) {
    this.#automaton = automaton;
    this.#masks = masks;
    this.#at = automaton.start;
  }

  /** Bits of the tokens that may come next. Throws PromptError where the vocabulary has none that go on. */
  mask(): TokenMask {
    return this.#masks.maskOf(this.#at);
  }

  /** Follows a token that mask() allowed. */
  accept(tokenId: number): void {
    const bytes = this.#masks.vocabulary.bytesOf(tokenId);
    let at: Configuration | null = bytes.length > 0 ? this.#at : null;
    for (const byte of bytes) at = at && this.#automaton.step(at, byte);
    if (at === null) throw new RangeError(`token ${tokenId} breaks the response format`);
    this.#at = at;
  }

  /** The text fulfils the format. */
  get isComplete(): boolean {
    return this.#at.isAccepting;
  }

  /** Nothing but the end of the text may follow. */
  get isOver(): boolean {
    return this.#at.isAccepting && this.#at.positions.length === 0;
  }
}

/** What is known of a model's tokens. */
export type TokenSource = {
  vocabSize: number;
  eosIds: readonly number[];
  /** Of tokens that are text; none for special ones. */
  bytesOf: (tokenId: number) => Uint8Array;
  /** Special tokens by id. */
  specialTexts: ReadonlyMap<number, string>;
  /**
   * Spaces that decoding drops at the start of an answer that does not continue its prompt; undefined where tokens
   * have no bytes of their own.
   */
  droppedSpaces: number | undefined;
};

export class Constraints {
  #source: TokenSource;
  #vocabulary: Vocabulary | undefined;
  #kept = new Map<string, { automaton: Automaton; masks: TokenMasks }>();

  constructor(source: TokenSource) {
    this.#source = source;
  }

  /** `continuation`: as in a TextStream. Throws OptionError where the format is not supported. */
  create(format: ResponseFormat, continuation: boolean): Constraint | undefined {
    if (format.type === 'text') return undefined;
    const key = `${continuation} ${JSON.stringify(format)}`;
    const kept = this.#kept.get(key) ?? this.#compile(format, continuation);
    this.#kept.delete(key);
    this.#kept.set(key, kept);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > KEPT_GRAMMARS && oldest !== undefined) this.#kept.delete(oldest);
    kept.automaton.trim();
    return new Constraint(kept.automaton, kept.masks);
  }

  #compile(format: Exclude<ResponseFormat, { type: 'text' }>, continuation: boolean) {
    const { vocabSize, eosIds, droppedSpaces, specialTexts } = this.#source;
    if (droppedSpaces === undefined)
      throw grammarError(PLACE, 'text: the tokenizer of this model cannot be held to a form', format.type);
    let grammar = formatGrammar(format, PLACE, [...specialTexts.values()]);
    if (!continuation && droppedSpaces > 0) {
      grammar = { ...grammar, root: sequence(repeat(text(' '), 0, droppedSpaces), grammar.root) };
    }
    this.#vocabulary ??= new Vocabulary(vocabSize, (tokenId) => this.#bytesOf(tokenId), eosIds);
    const automaton = new Automaton(new Graph(grammar, this.#vocabulary.maxTokenBytes, PLACE));
    return { automaton, masks: new TokenMasks(automaton, this.#vocabulary) };
  }

  #bytesOf(tokenId: number): Uint8Array {
    const { specialTexts, bytesOf } = this.#source;
    const special = specialTexts.get(tokenId);
    if (special !== undefined) return specialBytes(special);
    const bytes = bytesOf(tokenId);
    // No text has this byte; only special tokens may pass where it stands for them.
    return bytes.includes(SPECIAL_BYTE) ? NO_BYTES : bytes;
  }
}
