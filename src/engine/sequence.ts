/**
 * One request being computed: its tokens, how many of them are in the KV cache, and where. Made by the engine, moved
 * through steps by the batcher. Knows nothing of text, sampling or devices.
 */
import { createHash } from 'node:crypto';
import { KV_BLOCK_TOKENS } from './kv-blocks.js';

export class Sequence {
  readonly id: number;
  /** Index into the cancel flags that native reads. */
  readonly cancelSlot: number;
  readonly promptLength: number;
  /** KV blocks in order of position. */
  readonly blockIds: number[] = [];
  /** Slot of the state after the computed tokens, and that of the step under way; where the model has states. */
  readonly states: number[] = [];
  readonly nextStates: number[] = [];
  /** Tokens whose keys and values are in the KV cache; `advance` and `adopt` raise it, preemption sets it to 0. */
  computed = 0;
  /** Tokens that were found in the KV cache when they were first needed. */
  cached = 0;
  /** Takes blocks that others computed. Off where every token must pass through a step (recorded routing). */
  reusesBlocks = true;
  /** Prompt tokens whose logits were taken; Infinity where nobody asks for them. */
  scored = Infinity;
  /** How many of the largest logits decide the next token; 0: it takes all of them. */
  candidates = 0;
  /** Set while the reader lags: the sequence keeps its blocks and takes no part in steps. */
  paused = false;
  #tokens: Int32Array;
  #length: number;
  #reached = 0;
  #blockKeys: string[] = [];

  /** `capacity`: most tokens of prompt and answer together, > prompt length. */
  constructor(id: number, cancelSlot: number, prompt: Int32Array, capacity: number) {
    this.id = id;
    this.cancelSlot = cancelSlot;
    this.promptLength = prompt.length;
    this.#tokens = new Int32Array(capacity);
    this.#tokens.set(prompt);
    this.#length = prompt.length;
  }

  /** Tokens known so far: the prompt and what was generated. */
  get length(): number {
    return this.#length;
  }

  /** Tokens known but not yet computed: 1 in decode, more while the prompt is prefilled. */
  get pending(): number {
    return this.#length - this.computed;
  }

  /**
   * Sequence length that position-dependent frequencies (dynamic and longrope scaling) belong to when `count` more
   * tokens are computed: the whole prompt for each of its chunks, then the length so far.
   */
  ropeLength(count: number): number {
    return Math.max(this.promptLength, this.computed + count);
  }

  get generated(): number {
    return this.#length - this.promptLength;
  }

  get isFull(): boolean {
    return this.#length === this.#tokens.length;
  }

  /** View of the tokens [first, end). */
  tokens(first: number, end: number): Int32Array {
    return this.#tokens.subarray(first, end);
  }

  append(tokenId: number): void {
    this.#tokens[this.#length++] = tokenId;
  }

  /** Logits rows that are needed of the next `count` tokens; they belong to the last ones of them. */
  logitRows(count: number): number {
    const end = this.computed + count;
    if (this.scored < this.promptLength) return Math.max(0, end - Math.max(this.computed, this.scored));
    return end === this.length ? 1 : 0;
  }

  /** `count` more tokens were computed. */
  advance(count: number): void {
    this.computed += count;
    this.#reached = Math.max(this.#reached, this.computed);
  }

  /** The next block was found in the cache, its tokens need no computing. */
  adopt(blockId: number): void {
    const before = this.#reached;
    this.blockIds.push(blockId);
    this.advance(KV_BLOCK_TOKENS);
    this.cached += this.#reached - before;
  }

  /** Stands for the tokens of block `index` and all before it, which must be known: a chain of SHA-256. */
  blockKey(index: number): string {
    for (let at = this.#blockKeys.length; at <= index; at++) {
      const tokens = this.#tokens.subarray(at * KV_BLOCK_TOKENS, (at + 1) * KV_BLOCK_TOKENS);
      const chain = createHash('sha256').update(this.#blockKeys[at - 1] ?? '');
      this.#blockKeys.push(chain.update(tokens).digest('base64'));
    }
    return this.#blockKeys[index] ?? '';
  }
}
