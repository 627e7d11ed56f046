/**
 * Chooses the next token of one sequence from its row of logits: penalties (penalties.ts), temperature, top-k, top-p,
 * min-p, in this order, then one draw of a seeded generator. No step sorts the vocabulary: candidates are selected by
 * a heap. Called by the engine for each row of a step. The same seed and logits give the same tokens everywhere.
 */
import { randomBytes } from 'node:crypto';
import { LogitMask } from './logit-mask.js';
import { Penalties, type PenaltyParams } from './penalties.js';
import { TopSelection } from './top-selection.js';

export type SamplingParams = PenaltyParams & {
  /** 0 is greedy. */
  temperature: number;
  /** 0 = all. */
  topK: number;
  /** 1 = all. */
  topP: number;
  /** 0 = all. */
  minP: number;
  seed: number;
};

/** A seed for a caller who gave none; fits an integer option. */
export function randomSeed(): number {
  return randomBytes(4).readUInt32LE();
}

export class Sampler {
  readonly params: SamplingParams;
  #random: () => number;
  #penalties: Penalties;
  #top = new TopSelection();
  #mask = new LogitMask();

  constructor(params: SamplingParams) {
    this.params = params;
    this.#random = seededRandom(params.seed);
    this.#penalties = new Penalties(params);
  }

  /** Tells tokens that penalties apply to: the prompt, then each generated token. */
  observe(tokenIds: ArrayLike<number>, generated: boolean): void {
    this.#penalties.observe(tokenIds, generated);
  }

  /**
   * The next token for `logits` [vocabSize], which stay as they are. Equal logits: the lowest id wins. Only tokens
   * whose bit is set in `allowed` are chosen, where it is given.
   */
  sample(logits: Float32Array, allowed?: Uint32Array): number {
    const penalised = this.#penalties.apply(logits);
    const row = allowed === undefined ? penalised : this.#mask.apply(penalised, allowed);
    const { temperature, topK, topP, minP } = this.params;
    if (temperature === 0 || topK === 1) return argmax(row);
    if (topK > 0 && topK < row.length) {
      this.#top.select(row, topK);
      return this.#draw(row, this.#top.count, sumOfWeights(row, this.#top, temperature));
    }
    if (topP < 1) return this.#sampleTopP(row);
    if (minP > 0) {
      this.#top.selectAbove(row, largest(row) + temperature * Math.log(minP));
      return this.#draw(row, this.#top.count, sumOfWeights(row, this.#top, temperature));
    }
    return this.#sampleAll(row);
  }

  /** top-p over the whole vocabulary: widens the selection until it reaches the probability. */
  #sampleTopP(row: Float32Array): number {
    const { temperature, topP } = this.params;
    const total = sumOfWeights(row, undefined, temperature);
    for (let count = 64; ; count *= 8) {
      this.#top.select(row, count);
      const reached = sumOfWeights(row, this.#top, temperature);
      if (reached >= topP * total || this.#top.count === row.length) break;
    }
    return this.#draw(row, this.#top.count, total);
  }

  /**
   * One draw from the first `count` selected candidates, likeliest first, whose weights are shares of `total`;
   * candidates beyond topP of the total or below minP of the likeliest are left out.
   */
  #draw(row: Float32Array, count: number, total: number): number {
    const { temperature, topP, minP } = this.params;
    const ids = this.#top.ids;
    const best = row[ids[0] ?? 0] ?? 0;
    let kept = 0;
    let mass = 0;
    while (kept < count) {
      const weight = Math.exp(((row[ids[kept] ?? 0] ?? 0) - best) / temperature);
      // The token that crosses topP still belongs to it; the likeliest one always stays.
      if (kept > 0 && ((topP < 1 && mass >= topP * total) || weight < minP)) break;
      mass += weight;
      kept++;
    }
    let left = this.#random() * mass;
    for (let i = 0; i < kept; i++) {
      const id = ids[i] ?? 0;
      left -= Math.exp(((row[id] ?? 0) - best) / temperature);
      if (left < 0) return id;
    }
    return ids[kept - 1] ?? 0;
  }

  #sampleAll(row: Float32Array): number {
    const { temperature } = this.params;
    const best = largest(row);
    let left = this.#random() * sumOfWeights(row, undefined, temperature);
    let last = 0;
    for (let id = 0; id < row.length; id++) {
      const weight = Math.exp(((row[id] ?? 0) - best) / temperature);
      if (weight > 0) last = id;
      left -= weight;
      if (left < 0) return id;
    }
    return last;
  }
}

/** Log-probability of a token and the `count` likeliest ones under softmax(logits). */
export function logprobsOf(logits: Float32Array, tokenId: number, count: number) {
  const best = largest(logits);
  const logTotal = Math.log(sumOfWeights(logits, undefined, 1)) + best;
  const top = new TopSelection();
  top.select(logits, count);
  const logprob = (id: number) => (logits[id] ?? -Infinity) - logTotal;
  return {
    tokenId,
    logprob: logprob(tokenId),
    top: [...top.ids.subarray(0, top.count)].map((id) => ({ tokenId: id, logprob: logprob(id) })),
  };
}

function largest(row: Float32Array): number {
  return row[argmax(row)] ?? 0;
}

function argmax(row: Float32Array): number {
  let best = 0;
  let bestValue = row[0] ?? -Infinity;
  for (let id = 1; id < row.length; id++) {
    const value = row[id] ?? -Infinity;
    if (value > bestValue) {
      best = id;
      bestValue = value;
    }
  }
  return best;
}

/** Sum of exp((logit - largest) / temperature) over the selection, or over the whole row. */
function sumOfWeights(row: Float32Array, top: TopSelection | undefined, temperature: number): number {
  const best = top === undefined ? largest(row) : (row[top.ids[0] ?? 0] ?? 0);
  const count = top === undefined ? row.length : top.count;
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const id = top === undefined ? i : (top.ids[i] ?? 0);
    sum += Math.exp(((row[id] ?? 0) - best) / temperature);
  }
  return sum;
}

/** Uniform numbers in [0, 1) with 53 bits: sfc32 (C. Doty-Humphrey, PractRand) seeded by both halves of the seed. */
export function seededRandom(seed: number): () => number {
  let a = 0x9e3779b9;
  let b = seed | 0;
  let c = Math.floor(seed / 2 ** 32) | 0;
  let counter = 1;
  const next = () => {
    const result = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + result;
    c |= 0;
    return result >>> 0;
  };
  for (let i = 0; i < 15; i++) next();
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}
