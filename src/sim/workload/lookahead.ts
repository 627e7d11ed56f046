/**
 * Guesses of the next layer's experts, as the next layer's router applied to this layer's hidden state would make them:
 * as many as a token chooses, of which a given share is right. In simulation the mistakes are drawn at random; recall
 * is a knob, with public figures for its range in docs/simulation.md. Used by simulator.ts.
 */
import type { LayerGuess, StepBatch } from '../../device/device.js';
import type { RoutingRecord } from '../../engine/result.js';
import { randomBits } from './random.js';

/** Middle of the published 59-75% for as many guesses as chosen experts. */
export const DEFAULT_RECALL = 0.67;

/** Beyond this many tokens nearly all experts are active, and guessing says nothing. */
export const MAX_LOOKAHEAD_TOKENS = 64;

export class Lookahead implements LayerGuess {
  /** Of the last guess: layer, and experts likeliest first. */
  layer = -1;
  count = 0;
  readonly expertIds: Int32Array;
  /** [experts] tokens that the expert is guessed for. */
  private readonly votes: Float64Array;
  private readonly nextLayer: Int32Array;
  private readonly bits: () => number;
  private readonly threshold: number;

  constructor(
    private readonly records: ReadonlyMap<number, RoutingRecord>,
    layers: number,
    recall: number,
    seed: number,
  ) {
    const experts = Math.max(0, ...[...records.values()].map(({ numExperts }) => numExperts));
    this.expertIds = new Int32Array(experts);
    this.votes = new Float64Array(experts);
    this.nextLayer = new Int32Array(layers).fill(-1);
    for (const { layers: routed } of records.values()) {
      routed.forEach((layer, index) => {
        this.nextLayer[layer] = routed[index + 1] ?? -1;
      });
    }
    this.bits = randomBits(seed);
    this.threshold = recall * 2 ** 32;
  }

  /** Guesses for the layer with experts behind `layer`; undefined where there is nothing to guess. */
  guess(layer: number, batch: StepBatch): LayerGuess | undefined {
    const next = this.nextLayer[layer] ?? -1;
    const tokens = batch.sequences.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    if (next < 0 || tokens > MAX_LOOKAHEAD_TOKENS) return undefined;
    this.layer = next;
    this.votes.fill(0);
    for (const { cancelSlot, firstPosition, tokenIds } of batch.sequences) {
      const record = this.records.get(cancelSlot);
      if (record === undefined) continue;
      for (let i = 0; i < tokenIds.length; i++) this.vote(record, next, firstPosition + i);
    }
    this.rank();
    return this;
  }

  /** One token's guesses: each chosen expert is found with the probability of the recall, others fill up. */
  private vote(record: RoutingRecord, layer: number, token: number): void {
    const { topK, layers, ids, numExperts } = record;
    const at = (token * layers.length + layers.indexOf(layer)) * topK;
    for (let k = 0; k < topK; k++) {
      const found = this.bits() < this.threshold;
      const expert = found ? (ids[at + k] as number) : this.bits() % numExperts;
      // A right guess tends to be a surer one; the fraction also settles ties.
      const sureness = (found ? 0.25 : 0) + this.bits() / 2 ** 33;
      this.votes[expert] = (this.votes[expert] as number) + 1 + sureness;
    }
  }

  /** Guessed experts by falling votes, by insertion. */
  private rank(): void {
    const { votes, expertIds } = this;
    this.count = 0;
    for (let expert = 0; expert < votes.length; expert++) {
      const vote = votes[expert] as number;
      if (vote === 0) continue;
      let to = this.count++;
      for (; to > 0 && (votes[expertIds[to - 1] as number] as number) < vote; to--) {
        expertIds[to] = expertIds[to - 1] as number;
      }
      expertIds[to] = expert;
    }
  }
}
