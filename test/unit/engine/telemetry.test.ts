import { describe, expect, it } from 'vitest';
import { noCosts } from '../../../src/engine/accounting.js';
import { Telemetry } from '../../../src/engine/telemetry.js';
import { TOY, toyExperts } from './fake-device.js';
import { Harness, type HarnessOptions } from './harness.js';

const layers = [0, 1, 2, 3];

function watched(options: HarnessOptions = {}) {
  const telemetry = new Telemetry(layers, TOY.numExperts, 2, options.gpu === 'host', 0);
  const harness = new Harness({ ...options, engine: { telemetry } });
  return { telemetry, harness, now: () => harness.device.nowUs() };
}

const prompt = (length: number) => Array.from({ length }, (_, i) => (i * 13) % 90);

describe('Telemetry', () => {
  it('adds up what the requests of an engine report', () => {
    const { telemetry, harness, now } = watched({ gpu: 'host', prefixCache: false });
    harness.add(1, prompt(30), { maxTokens: 8 });
    harness.add(2, prompt(20), { maxTokens: 3 });
    expect(harness.engine.state.requests).toEqual({ running: 0, waiting: 2 });
    harness.engine.step();
    expect(harness.engine.state).toMatchObject({ requests: { running: 2, waiting: 0 } });
    expect(harness.engine.state.kvBlocks.free).toBeLessThan(harness.engine.state.kvBlocks.total);
    harness.run();
    const { total, batchSizes } = telemetry.snapshot(now(), false);
    expect(total).toMatchObject({ promptTokens: 50, generatedTokens: 11, sequences: 11 });
    // Both requests share their first three steps.
    expect(total.devices.steps).toBe(8);
    expect(batchSizes).toEqual([0, 5, 3]);
    const first = harness.results.get(1);
    expect(total.experts).toEqual(first?.experts);
    expect(total.devices).toEqual(first?.devices);
  });

  it('counts the tokens of each expert', () => {
    const { telemetry, harness, now } = watched();
    const result = harness.generate(prompt(9), { maxTokens: 5 });
    const computed = [...prompt(9), ...result.tokenIds.slice(0, -1)];
    const expected = layers.flatMap((layer) => {
      const counts = new Array<number>(TOY.numExperts).fill(0);
      for (const token of computed)
        for (const expert of toyExperts(token, layer)) counts[expert] = (counts[expert] ?? 0) + 1;
      return counts;
    });
    const stats = telemetry.snapshot(now(), false);
    expect([...stats.expertTokens]).toEqual(expected);
    expect(stats).toMatchObject({ moeLayers: layers, numExperts: TOY.numExperts });
  });

  it('tokens computed anew after preemption count as prompt tokens, generated ones only once', () => {
    const { telemetry, harness, now } = watched({ blocks: 6, maxContext: 96, prefixCache: false });
    for (const id of [1, 2, 3]) harness.add(id, prompt(10 + id), { maxTokens: 60 });
    harness.run();
    const { total } = telemetry.snapshot(now(), false);
    expect(total.generatedTokens).toBe(180);
    expect(total.promptTokens).toBeGreaterThan(36);
  });

  it('forgets what is older than its window', () => {
    const telemetry = new Telemetry([], 0, 1, false, 0);
    const add = (endUs: number) => {
      const step = { startUs: endUs - 1000, endUs, sequences: 1, promptTokens: 0, generatedTokens: 1 };
      telemetry.add({ ...step, costs: { ...noCosts(1), steps: 1, stepUs: 1000 } }, () => {
        throw new Error('no layer routes');
      });
    };
    add(1e6);
    add(3e6);
    const recent = (atUs: number) => telemetry.snapshot(atUs, false).recent;
    expect(recent(4e6)).toMatchObject({ generatedTokens: 2, windowMs: 4000 });
    expect(recent(7e6)).toMatchObject({ generatedTokens: 1, windowMs: 4500 });
    expect(recent(60e6)).toMatchObject({ generatedTokens: 0, devices: { steps: 0 } });
    expect(telemetry.snapshot(60e6, false).total.generatedTokens).toBe(2);
  });

  it('records the spans of a few steps after being asked, and leaves the requests’ traces alone', () => {
    const { telemetry, harness, now } = watched();
    harness.add(1, prompt(5), { maxTokens: 30 });
    for (let i = 0; i < 3; i++) harness.engine.step();
    expect(telemetry.snapshot(now(), true).timeline).toEqual([]);
    for (let i = 0; i < 10; i++) harness.engine.step();
    expect(harness.device.tracing).toBe(false);
    const { timeline } = telemetry.snapshot(now(), true);
    expect(timeline.length).toBe(6);
    for (const step of timeline) {
      expect(step.spans.map(({ name }) => name)).toContain('step');
      expect(step.endUs).toBeGreaterThanOrEqual(step.startUs);
    }
    expect(telemetry.snapshot(now(), false).timeline).toEqual([]);
    harness.run();
    expect(harness.results.get(1)?.trace).toBeUndefined();
  });
});
