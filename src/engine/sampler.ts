/**
 * Chooses the next token of one sequence from its row of logits: penalties (penalties.ts), temperature, top-k, top-p,
 * min-p, in this order, then one draw of a seeded generator. No step sorts the vocabulary: candidates are selected by
 * a heap. Called by the engine for each row of a step. The same seed and logits give the same tokens everywhere.
 */
import { randomBytes } from 'node:crypto';
import { type Candidates, type ChoiceParams, certainCut, cut, draw, sumOfCandidates } from './candidates.js';
import { LogitMask } from './logit-mask.js';
import { Penalties, type PenaltyParams } from './penalties.js';
import { TopSelection } from './top-selection.js';

export type SamplingParams = PenaltyParams & ChoiceParams & { seed: number };

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
   * whose bit is set in `allowed` are chosen, where it is given. `candidates`: the largest logits, where no penalty
   * applies and all tokens are allowed; the choice is the same with or without them.
   */
  sample(logits: Float32Array, allowed?: Uint32Array, candidates?: Candidates): number {
    const chosen = candidates && this.#sampleCandidates(candidates, logits.length);
    if (chosen !== undefined) return chosen;
    const penalised = this.#penalties.apply(logits);
    const row = allowed === undefined ? penalised : this.#mask.apply(penalised, allowed);
    const { temperature, topK, topP, minP } = this.params;
    if (temperature === 0 || topK === 1) return argmax(row);
    if (topK > 0 && topK < row.length) {
      this.#top.select(row, topK);
      return this.#draw(sumOfCandidates(this.#top, this.#top.count, temperature));
    }
    if (topP < 1) return this.#sampleTopP(row);
    if (minP > 0) {
      this.#top.selectAbove(row, largest(row) + temperature * Math.log(minP));
      return this.#draw(sumOfCandidates(this.#top, this.#top.count, temperature));
    }
    return this.#sampleAll(row);
  }

  /** top-p over the whole vocabulary: widens the selection until it reaches the probability. */
  #sampleTopP(row: Float32Array): number {
    const { temperature, topP } = this.params;
    const total = sumOfWeights(row, temperature);
    for (let count = 64; ; count *= 8) {
      this.#top.select(row, count);
      const reached = sumOfCandidates(this.#top, this.#top.count, temperature);
      if (reached >= topP * total || this.#top.count === row.length) break;
    }
    return this.#draw(total);
  }

  /** One draw from the selection, whose weights are shares of `total`. */
  #draw(total: number): number {
    const { kept, mass } = cut(this.#top, this.#top.count, total, this.params);
    return draw(this.#top, kept, mass, this.params.temperature, this.#random());
  }

  /** As from the whole row; undefined where the candidates do not decide. */
  #sampleCandidates(candidates: Candidates, vocabSize: number): number | undefined {
    const { temperature, topK } = this.params;
    if (temperature === 0 || topK === 1) return candidates.ids[0];
    const certain = certainCut(candidates, vocabSize, this.params);
    return certain && draw(candidates, certain.kept, certain.mass, temperature, this.#random());
  }

  #sampleAll(row: Float32Array): number {
    const { temperature } = this.params;
    const best = largest(row);
    let left = this.#random() * sumOfWeights(row, temperature);
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
  const logTotal = Math.log(sumOfWeights(logits, 1)) + best;
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

/** Sum of exp((logit - largest) / temperature) over the row. */
function sumOfWeights(row: Float32Array, temperature: number): number {
  const best = largest(row);
  let sum = 0;
  for (let id = 0; id < row.length; id++) sum += Math.exp(((row[id] ?? 0) - best) / temperature);
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
