import { describe, expect, it } from 'vitest';
import { GuessRanking } from '../../../src/device/guess-ranking.js';

const ranked = (ranking: GuessRanking, ids: number[], weights: number[]) => {
  const { layer, count, expertIds } = ranking.rank(
    3,
    Int32Array.from(ids),
    Float32Array.from(weights),
    ids.length,
  );
  return { layer, experts: [...expertIds.subarray(0, count)] };
};

describe('the ranking of guesses', () => {
  it('puts the experts with the largest sum of weights first, equal ones by id', () => {
    const ranking = new GuessRanking(8);
    // Two tokens of three experts each: 1 gets 0.2 + 0.5, 6 and 2 get 0.5, 5 gets 0.3.
    expect(ranked(ranking, [1, 5, 6, 1, 2, 7], [0.2, 0.3, 0.5, 0.5, 0.5, 0])).toEqual({
      layer: 3,
      experts: [1, 2, 6, 5, 7],
    });
  });

  it('forgets the guess before', () => {
    const ranking = new GuessRanking(8);
    ranked(ranking, [0, 1, 2], [0.9, 0.05, 0.05]);
    expect(ranked(ranking, [2, 3], [0.1, 0.2]).experts).toEqual([3, 2]);
  });
});
