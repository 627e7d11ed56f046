/**
 * Puts the experts that tokens are guessed to choose in order, likeliest first: by the sum of the weights that the
 * router would give them. Used by native.ts for the guesses of native/runtime/forward_lookahead.cc.
 */
import type { LayerGuess } from './device.js';

export class GuessRanking {
  private readonly guess: { layer: number; count: number; expertIds: Int32Array };
  /** [numExperts] all zero between calls. */
  private readonly votes: Float64Array;

  constructor(numExperts: number) {
    this.guess = { layer: -1, count: 0, expertIds: new Int32Array(numExperts) };
    this.votes = new Float64Array(numExperts);
  }

  /** Of the first `pairs` ids and weights; equal votes by expert id. The result is reused by the next call. */
  rank(layer: number, ids: Int32Array, weights: Float32Array, pairs: number): LayerGuess {
    const { guess, votes } = this;
    const { expertIds } = guess;
    guess.layer = layer;
    guess.count = 0;
    for (let i = 0; i < pairs; i++) {
      const expert = ids[i] as number;
      if (votes[expert] === 0) expertIds[guess.count++] = expert;
      // A weight that has underflown to 0 is a guess too.
      votes[expert] = (votes[expert] as number) + Math.max(weights[i] as number, Number.MIN_VALUE);
    }
    expertIds.subarray(0, guess.count).sort((a, b) => (votes[b] as number) - (votes[a] as number) || a - b);
    for (let i = 0; i < guess.count; i++) votes[expertIds[i] as number] = 0;
    return guess;
  }
}
