import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { candidatesWanted, certainCut } from '../../../src/engine/candidates.js';
import { logprobsOf, Sampler, type SamplingParams, seededRandom } from '../../../src/engine/sampler.js';
import { TopSelection } from '../../../src/engine/top-selection.js';

const all: SamplingParams = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  logitBias: [],
  seed: 7,
};
const logits = Float32Array.of(1, 3, 2, 0, -1, 2.5);

/** Probabilities by definition, with a full sort: what the sampler must reproduce. */
function expectedProbabilities(row: Float32Array, params: SamplingParams): number[] {
  const ids = [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
  let kept = params.topK > 0 ? ids.slice(0, params.topK) : ids;
  const weight = (id: number) => Math.exp(((row[id] as number) - Math.max(...row)) / params.temperature);
  const total = kept.reduce((sum, id) => sum + weight(id), 0);
  let mass = 0;
  kept = kept.filter((id, index) => {
    const before = mass;
    mass += weight(id);
    return index === 0 || params.topP === 1 || before < params.topP * total;
  });
  kept = kept.filter((id, index) => index === 0 || weight(id) >= params.minP);
  const keptTotal = kept.reduce((sum, id) => sum + weight(id), 0);
  return [...row.keys()].map((id) => (kept.includes(id) ? weight(id) / keptTotal : 0));
}

function observedProbabilities(row: Float32Array, params: SamplingParams, draws: number): number[] {
  const sampler = new Sampler(params);
  const counts = new Array<number>(row.length).fill(0);
  for (let i = 0; i < draws; i++) {
    const id = sampler.sample(row);
    counts[id] = (counts[id] as number) + 1;
  }
  return counts.map((count) => count / draws);
}

describe('Sampler', () => {
  it('is greedy at temperature 0 and takes the lowest of equal tokens', () => {
    expect(new Sampler({ ...all, temperature: 0 }).sample(logits)).toBe(1);
    expect(new Sampler({ ...all, temperature: 0 }).sample(Float32Array.of(0, 5, 5))).toBe(1);
    expect(new Sampler({ ...all, topK: 1 }).sample(logits)).toBe(1);
  });

  it.each([
    ['temperature alone', { temperature: 0.7 }],
    ['top-k', { topK: 3 }],
    ['top-k larger than the vocabulary', { topK: 100 }],
    ['top-p', { topP: 0.8 }],
    ['min-p', { minP: 0.2 }],
    ['top-k, top-p and min-p', { topK: 4, topP: 0.9, minP: 0.15, temperature: 1.3 }],
    ['top-p with min-p', { topP: 0.95, minP: 0.3, temperature: 2 }],
  ])('draws by the defined distribution: %s', (_, part) => {
    const params = { ...all, ...part };
    const draws = 40_000;
    const observed = observedProbabilities(logits, params, draws);
    expectedProbabilities(logits, params).forEach((p, id) => {
      if (p === 0) expect(observed[id]).toBe(0);
      // Five standard deviations of a binomial share.
      else expect(Math.abs((observed[id] as number) - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / draws));
    });
  });

  it('top-p reaches beyond its first selection in a flat vocabulary', () => {
    const flat = new Float32Array(2000);
    const observed = observedProbabilities(flat, { ...all, topP: 0.5 }, 2000);
    expect(observed.slice(1001).every((share) => share === 0)).toBe(true);
    expect(observed.slice(900, 1000).some((share) => share > 0)).toBe(true);
  });

  it('chooses from candidates what it chooses from the row', () => {
    const shapes = fc.record({
      values: fc.array(fc.integer({ min: -60, max: 60 }), { minLength: 2, maxLength: 400 }),
      spread: fc.constantFrom(0.05, 0.3, 1),
      temperature: fc.constantFrom(0, 0.3, 1, 2.5),
      topK: fc.constantFrom(0, 0, 1, 5, 64, 100),
      topP: fc.constantFrom(1, 0.999, 0.9, 0.5, 0.1),
      minP: fc.constantFrom(0, 0, 0.02, 0.4),
      seed: fc.nat(),
    });
    let decided = 0;
    fc.assert(
      fc.property(shapes, ({ values, spread, ...part }) => {
        const params = { ...all, ...part };
        const row = Float32Array.from(values, (value) => value * spread);
        const ids = Int32Array.from(
          [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number) || a - b),
        ).subarray(0, candidatesWanted(params));
        const candidates = { ids, logits: Float32Array.from(ids, (id) => row[id] as number) };
        if (ids.length === 0) return;
        if (params.temperature > 0 && certainCut(candidates, row.length, params)) decided++;
        const whole = new Sampler(params);
        const short = new Sampler(params);
        for (let i = 0; i < 4; i++) expect(short.sample(row, undefined, candidates)).toBe(whole.sample(row));
      }),
      { numRuns: 3000, seed: 5 },
    );
    expect(decided).toBeGreaterThan(500);
  });

  it('leaves a choice to the row that candidates cannot decide', () => {
    const candidates = { ids: Int32Array.from({ length: 64 }, (_, id) => id), logits: new Float32Array(64) };
    expect(certainCut(candidates, 2000, { ...all, topP: 0.5 })).toBeUndefined();
    expect(certainCut(candidates, 2000, { ...all, minP: 0.5 })).toBeUndefined();
    expect(certainCut(candidates, 2000, { ...all, topK: 65 })).toBeUndefined();
    expect(candidatesWanted({ ...all, topK: 65 })).toBe(0);
    expect(candidatesWanted(all)).toBe(0);
    expect(candidatesWanted({ ...all, temperature: 0, repetitionPenalty: 1.1 })).toBe(0);
  });

  it('penalises tokens that were seen, once however often', () => {
    const sampler = new Sampler({ ...all, temperature: 0, repetitionPenalty: 2 });
    sampler.observe([1, 1, 1], false);
    expect(sampler.sample(logits)).toBe(5);
    sampler.observe([5], true);
    expect(sampler.sample(logits)).toBe(2);
    expect(logits[1]).toBe(3);
    const negative = new Sampler({ ...all, temperature: 0, repetitionPenalty: 2 });
    negative.observe([0], false);
    expect(negative.sample(Float32Array.of(-1, -1.5))).toBe(1);
  });

  it('takes frequency and presence off tokens of the answer, never off the prompt', () => {
    const greedy = { ...all, temperature: 0 };
    const frequency = new Sampler({ ...greedy, frequencyPenalty: 0.3 });
    frequency.observe([1, 1, 1, 1], false);
    expect(frequency.sample(logits)).toBe(1);
    frequency.observe([1], true);
    expect(frequency.sample(logits)).toBe(1);
    frequency.observe([1], true);
    expect(frequency.sample(logits)).toBe(5);
    const presence = new Sampler({ ...greedy, presencePenalty: 0.3 });
    presence.observe([1, 1, 1], true);
    expect(presence.sample(logits)).toBe(1);
    const both = new Sampler({ ...greedy, presencePenalty: 0.3, frequencyPenalty: 0.1 });
    both.observe([1, 1, 1], true);
    expect(both.sample(logits)).toBe(5);
    expect(logits[1]).toBe(3);
  });

  it('adds a bias before it chooses', () => {
    const greedy = { ...all, temperature: 0 };
    expect(new Sampler({ ...greedy, logitBias: [[4, 5]] }).sample(logits)).toBe(4);
    expect(new Sampler({ ...greedy, logitBias: [[1, -100]] }).sample(logits)).toBe(5);
    expect(logits[4]).toBe(-1);
  });

  it('repeats itself by seed and differs between seeds', () => {
    const row = Float32Array.from({ length: 500 }, (_, id) => Math.sin(id));
    const draw = (seed: number) => {
      const sampler = new Sampler({ ...all, seed });
      return Array.from({ length: 20 }, () => sampler.sample(row));
    };
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
    expect(draw(1)).not.toEqual(draw(1 + 2 ** 40));
  });

  it('gives log-probabilities of the plain softmax', () => {
    const result = logprobsOf(logits, 2, 2);
    const p = expectedProbabilities(logits, all);
    expect(result.logprob).toBeCloseTo(Math.log(p[2] as number), 10);
    expect(result.top.map((entry) => entry.tokenId)).toEqual([1, 5]);
    expect(result.top[0]?.logprob).toBeCloseTo(Math.log(p[1] as number), 10);
  });

  it('a draw from 150,000 tokens sorts nothing', () => {
    const random = seededRandom(3);
    const row = Float32Array.from({ length: 150_000 }, () => random() * 20);
    const sampler = new Sampler({ ...all, topK: 40, topP: 0.9 });
    sampler.sample(row);
    const times = Array.from({ length: 9 }, () => {
      const start = performance.now();
      sampler.sample(row);
      return performance.now() - start;
    }).sort((a, b) => a - b);
    // A full sort of 150,000 floats takes above 10 ms here; the bound leaves room for a busy machine.
    expect(times[4]).toBeLessThan(5);
  });
});

describe('TopSelection', () => {
  it('equals the beginning of a full sort', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -5, max: 5 }), { maxLength: 200 }),
        fc.nat(220),
        (values, count) => {
          const row = Float32Array.from(values);
          const sorted = [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
          const top = new TopSelection();
          top.select(row, count);
          expect([...top.ids.subarray(0, top.count)]).toEqual(sorted.slice(0, count));
          top.selectAbove(row, 2);
          expect([...top.ids.subarray(0, top.count)]).toEqual(
            sorted.filter((id) => (row[id] as number) >= 2),
          );
        },
      ),
    );
  });
});

describe('seededRandom', () => {
  it('is uniform in [0, 1)', () => {
    const random = seededRandom(11);
    const buckets = new Array<number>(20).fill(0);
    for (let i = 0; i < 100_000; i++) {
      const value = random();
      if (!(value >= 0 && value < 1)) throw new Error(`${value} is outside`);
      buckets[Math.floor(value * 20)] = (buckets[Math.floor(value * 20)] as number) + 1;
    }
    const chiSquare = buckets.reduce((sum, count) => sum + (count - 5000) ** 2 / 5000, 0);
    expect(chiSquare).toBeLessThan(43.8); // 0.1% point for 19 degrees of freedom
  });
});
