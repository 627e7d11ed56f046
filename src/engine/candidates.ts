/**
 * Sampling from the likeliest tokens of a row alone, where the rest of the row could not change the choice: the device
 * picks them while it computes the row (native/runtime/top_candidates.h), and nobody reads the other logits. Used by
 * sampler.ts, which falls back to the whole row where these do not decide.
 */
import { type CandidateRows, MAX_CANDIDATES } from '../device/device.js';
import type { PenaltyParams } from './penalties.js';

/** What a choice keeps of the row. */
export type ChoiceParams = {
  /** 0 is greedy. */
  temperature: number;
  /** 0 = all. */
  topK: number;
  /** 1 = all. */
  topP: number;
  /** 0 = all. */
  minP: number;
};

/** Tokens in falling order of their logits, of equal ones the lowest id first. */
export type Candidates = { ids: Int32Array; logits: Float32Array };

/** How many candidates a choice by these parameters looks at; 0: it needs the whole row. */
export function candidatesWanted(params: ChoiceParams & PenaltyParams): number {
  const { temperature, topK, topP, minP } = params;
  const changed =
    params.repetitionPenalty !== 1 || params.frequencyPenalty !== 0 || params.presencePenalty !== 0;
  if (changed || params.logitBias.length > 0) return 0;
  if (temperature === 0) return 1;
  if (topK > 0) return topK <= MAX_CANDIDATES ? topK : 0;
  return topP < 1 || minP > 0 ? MAX_CANDIDATES : 0;
}

export function candidatesOfRow(rows: CandidateRows | undefined, row: number): Candidates | undefined {
  if (rows === undefined) return undefined;
  const first = row * MAX_CANDIDATES;
  return {
    ids: rows.ids.subarray(first, first + rows.count),
    logits: rows.logits.subarray(first, first + rows.count),
  };
}

/**
 * How many of the first `count` candidates stay when those beyond topP of `total` (a sum of weights) or below minP of
 * the likeliest are left out, and their own sum of weights. `ended`: a candidate was left out.
 */
export function cut({ logits }: Candidates, count: number, total: number, params: ChoiceParams) {
  const { temperature, topP, minP } = params;
  const best = logits[0] ?? 0;
  let mass = 0;
  for (let kept = 0; kept < count; kept++) {
    const weight = Math.exp(((logits[kept] ?? 0) - best) / temperature);
    // The token that crosses topP still belongs to it; the likeliest one always stays.
    if (kept > 0 && ((topP < 1 && mass >= topP * total) || weight < minP)) return { kept, mass, ended: true };
    mass += weight;
  }
  return { kept: count, mass, ended: false };
}

/** Sum of exp((logit - largest) / temperature) over the first `count`. */
export function sumOfCandidates({ logits }: Candidates, count: number, temperature: number): number {
  const best = logits[0] ?? 0;
  let sum = 0;
  for (let i = 0; i < count; i++) sum += Math.exp(((logits[i] ?? 0) - best) / temperature);
  return sum;
}

/**
 * The cut that the whole row of `vocabSize` logits would give, or undefined where these candidates leave it open. Not
 * for a greedy choice.
 */
export function certainCut(candidates: Candidates, vocabSize: number, params: ChoiceParams) {
  const { temperature, topK, topP, minP } = params;
  const { logits } = candidates;
  const count = logits.length;
  const best = logits[0] ?? 0;
  const last = logits[count - 1] ?? 0;
  if (topK > 0 && topK < vocabSize) {
    if (topK > count) return undefined;
    return cut(candidates, topK, sumOfCandidates(candidates, topK, temperature), params);
  }
  if (topP < 1) {
    // Each token outside weighs at most what the last candidate does; the row's sum is rounded once a token.
    const inside = sumOfCandidates(candidates, count, temperature);
    const outside = (vocabSize - count) * Math.exp((last - best) / temperature);
    const slack = vocabSize * Number.EPSILON;
    const least = cut(candidates, count, inside * (1 - slack), params);
    const most = cut(candidates, count, (inside + outside) * (1 + slack), params);
    // More of a total never keeps fewer, so that equal ends leave nothing between them.
    return most.ended && least.kept === most.kept ? most : undefined;
  }
  const threshold = best + temperature * Math.log(minP);
  if (!(minP > 0) || last >= threshold) return undefined;
  return cut(candidates, count, 0, params);
}

/** One draw from the first `kept` candidates, whose weights add up to `mass`; `random` in [0, 1). */
export function draw(
  { ids, logits }: Candidates,
  kept: number,
  mass: number,
  temperature: number,
  random: number,
) {
  const best = logits[0] ?? 0;
  let left = random * mass;
  for (let i = 0; i < kept; i++) {
    left -= Math.exp(((logits[i] ?? 0) - best) / temperature);
    if (left < 0) return ids[i] ?? 0;
  }
  return ids[kept - 1] ?? 0;
}
