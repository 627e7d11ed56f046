import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RoutingProfile } from '../../src/sim/workload/profiles.js';
import { readProfiles } from '../../src/sim/workload/profiles.js';
import { readRouting } from '../../src/sim/workload/routing-file.js';
import {
  meanStatistics,
  type RoutingStatistics,
  routingStatistics,
} from '../../src/sim/workload/statistics.js';
import { syntheticRouting } from '../../src/sim/workload/synthetic.js';

const traces = fileURLToPath(new URL('../../../shared/traces/', import.meta.url));
const hasTraces = existsSync(traces);
const skipped = hasTraces ? '' : ' (skipped: no shared traces)';

const layers = (count: number) => Array.from({ length: count }, (_, layer) => layer);

function generate({ shape, knobs }: RoutingProfile, seed: number, correlation = 1) {
  const { experts, topK, tokens } = shape;
  return syntheticRouting({
    shape: { experts, topK, layers: layers(24) },
    knobs,
    promptTokens: Math.floor(tokens / 2),
    answerTokens: tokens - Math.floor(tokens / 2),
    correlation,
    seed,
  });
}

const named = (statistics: RoutingStatistics) => ({
  variation: statistics.variation,
  reuse: statistics.reuse,
  'coverage 12.5%': statistics.coverage[0] ?? 0,
  'coverage 25%': statistics.coverage[1] ?? 0,
  'coverage 50%': statistics.coverage[2] ?? 0,
  'best 25%': statistics.bestQuarter,
  'LRU 12.5%': statistics.lruHits[0] ?? 0,
  'LRU 25%': statistics.lruHits[1] ?? 0,
  'LRU 50%': statistics.lruHits[2] ?? 0,
});

describe('synthetic routing', () => {
  it.each(readProfiles())('has the statistics of a real model: $id', (profile) => {
    const got = named(meanStatistics([1, 2, 3].map((seed) => routingStatistics(generate(profile, seed)))));
    const wanted = named(profile.statistics);
    for (const [name, value] of Object.entries(wanted)) {
      const share = got[name as keyof typeof got] / value;
      expect.soft(share, `${profile.id}: ${name}`).toBeGreaterThan(0.9);
      expect.soft(share, `${profile.id}: ${name}`).toBeLessThan(1.1);
    }
  });

  it('correlates prompt and answer as told', () => {
    const [profile] = readProfiles();
    if (profile === undefined) throw new Error('no profiles');
    const between = (correlation: number) =>
      meanStatistics([1, 2].map((seed) => routingStatistics(generate(profile, seed, correlation))))
        .correlation;
    const [none, some, all] = [between(0), between(0.6), between(1)];
    expect(Math.abs(none)).toBeLessThan(0.1);
    expect(some / all).toBeGreaterThan(0.45);
    expect(some / all).toBeLessThan(0.75);
  });

  it('is the same for the same seed, and gives each token different experts in ascending order', () => {
    const shape = fc.record({
      experts: fc.integer({ min: 1, max: 40 }),
      topK: fc.integer({ min: 1, max: 8 }),
    });
    fc.assert(
      fc.property(
        shape,
        fc.nat(1000),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (drawn, seed, correlation) => {
          const topK = Math.min(drawn.topK, drawn.experts);
          const make = () =>
            syntheticRouting({
              shape: { experts: drawn.experts, topK, layers: [0, 2, 5] },
              knobs: { skew: 0.5, tail: 0.3, topic: 0.4, topicTokens: 50, reuseTokens: 1 },
              promptTokens: 5,
              answerTokens: 4,
              correlation,
              seed,
            });
          const record = make();
          expect(make()).toEqual(record);
          for (let at = 0; at < record.ids.length; at++) {
            expect(record.ids[at]).toBeLessThan(drawn.experts);
            if (at % topK > 0) expect(record.ids[at]).toBeGreaterThan(record.ids[at - 1] as number);
          }
        },
      ),
    );
  });

  it.each([
    [{ correlation: 1.5 }, /`correlation` to be a number from 0 to 1, got 1.5/],
    [{ promptTokens: 0 }, /`promptTokens` to be an integer >= 1, got 0/],
    [{ seed: -1 }, /`seed` to be an integer >= 0, got -1/],
    [{ shape: { experts: 4, topK: 5, layers: [0] } }, /`topK` to be an integer from 1 to 4, got 5/],
    [
      { knobs: { skew: 0, tail: 0, topic: 0, topicTokens: 0, reuseTokens: 1 } },
      /`topicTokens` to be a number > 0/,
    ],
  ])('refuses %j', (change, message) => {
    const good = {
      shape: { experts: 8, topK: 2, layers: [0] },
      knobs: { skew: 0.5, tail: 0, topic: 0.4, topicTokens: 50, reuseTokens: 1 },
      promptTokens: 2,
      answerTokens: 2,
      correlation: 0.5,
      seed: 1,
    };
    expect(() => syntheticRouting({ ...good, ...change })).toThrow(message);
  });
});

describe.skipIf(!hasTraces)(`statistics of public traces${skipped}`, () => {
  const profileOf = (id: string) => readProfiles().find((profile) => profile.id === id);

  it('are those that the gpt-oss profile names', () => {
    const folder = `${traces}gpt-oss-20b/`;
    const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
    const got = named(meanStatistics(files.map((name) => routingStatistics(readRouting(folder + name, 1)))));
    const wanted = named(profileOf('gpt-oss-20b')?.statistics ?? routingStatistics(readRouting('', 1)));
    // 20 of the 48 prompts of the published figures.
    for (const [name, value] of Object.entries(wanted)) {
      expect(Math.abs(got[name as keyof typeof got] / value - 1), name).toBeLessThan(0.05);
    }
  });

  it('are those that the OLMoE profile names', () => {
    const got = named(routingStatistics(readRouting(`${traces}olmoe-1b-7b/trace_olmoe_299.jsonl`, 1)));
    const wanted = named(profileOf('olmoe-1b-7b')?.statistics ?? routingStatistics(readRouting('', 1)));
    for (const [name, value] of Object.entries(wanted)) {
      expect(Math.abs(got[name as keyof typeof got] / value - 1), name).toBeLessThan(0.05);
    }
  });
});
