import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SimulatedDevice } from '../../src/device/simulated.js';
import { DeviceError } from '../../src/errors.js';
import { gpuById, readHardware, unitById } from '../../src/sim/hardware.js';
import { ModeledTimes } from '../../src/sim/modeled-times.js';
import { type ModelShape, modelByName, moeLayerCount } from '../../src/sim/models.js';
import { type SimulationInput, simulate } from '../../src/sim/simulator.js';
import { SYSTEMS, systemById } from '../../src/sim/systems.js';
import { syntheticRouting } from '../../src/sim/workload/synthetic.js';

const hardware = readHardware();
const knobs = { skew: 0.5, tail: 0.5, topic: 0.4, topicTokens: 40, reuseTokens: 1 };

/** The first layers of a real shape, to be quick. */
function smallModel(name: string, layers: number): ModelShape {
  const model = modelByName(name);
  return {
    ...model,
    layers: model.layers.slice(0, layers),
    spec: { ...model.spec, layers: model.spec.layers.slice(0, layers) },
  };
}

type Drawn = {
  model: string;
  layers: number;
  units: number;
  bandwidthGBs: number;
  linkGBs: number;
  slots: number;
  prompt: number;
  answer: number;
  batch: number;
  chunk: number;
  seed: number;
  system: string;
};

const drawn: fc.Arbitrary<Drawn> = fc.record({
  model: fc.constantFrom('qwen3-30b-a3b', 'mixtral-8x7b', 'deepseek-v2-lite', 'qwen1.5-moe-a2.7b'),
  layers: fc.integer({ min: 2, max: 4 }),
  units: fc.integer({ min: 1, max: 7 }),
  bandwidthGBs: fc.double({ min: 5, max: 400, noNaN: true }),
  linkGBs: fc.double({ min: 1, max: 400, noNaN: true }),
  slots: fc.integer({ min: 0, max: 300 }),
  prompt: fc.integer({ min: 1, max: 40 }),
  answer: fc.integer({ min: 2, max: 25 }),
  batch: fc.integer({ min: 1, max: 3 }),
  chunk: fc.integer({ min: 1, max: 64 }),
  seed: fc.nat(1000),
  system: fc.constantFrom(...SYSTEMS.map(({ id }) => id)),
});

function inputOf(draw: Drawn): SimulationInput {
  const system = systemById(draw.system);
  const model = smallModel(draw.model, draw.layers);
  const moeLayers = model.layers.flatMap(({ hasExperts }, layer) => (hasExperts ? [layer] : []));
  const gpu = { ...gpuById(hardware, 'rtx5080'), hostToDeviceGBs: draw.linkGBs };
  // Room for the dense part and as many experts as drawn; on-demand systems need one layer's at least.
  const least = system.beside === 'nothing' ? model.experts : 0;
  const requests = Array.from({ length: system.isOracle ? 1 : draw.batch }, (_, index) =>
    syntheticRouting({
      shape: { experts: model.experts, topK: model.topK, layers: moeLayers },
      knobs,
      promptTokens: draw.prompt,
      answerTokens: draw.answer + index,
      correlation: 0.5,
      seed: draw.seed + index,
    }),
  );
  const slots = Math.max(least, draw.slots);
  const memoryBytes = 30e9 + slots * model.expertBytes;
  const unit = { ...unitById(hardware, 'ndp-dimm'), bandwidthGBs: draw.bandwidthGBs };
  const dense = 30e9 - reserved(model, requests);
  return {
    model,
    box: { gpu: { ...gpu, memoryBytes }, unit, units: draw.units },
    hardware: { ...hardware, host: { ...hardware.host, reservedBytes: dense } },
    system,
    requests,
    popular: moeLayers.flatMap((layer) => Array.from({ length: 8 }, (_, expert) => ({ layer, expert }))),
    maxBatchTokens: Math.max(draw.chunk, requests.length),
    seed: draw.seed,
    trace: true,
  };
}

function reserved(model: ModelShape, requests: SimulationInput['requests']): number {
  const perLayer = model.layers.reduce(
    (sum, layer) => sum + layer.attentionBytes + layer.feedForwardBytes + layer.sharedBytes,
    0,
  );
  const tokens = requests.reduce((sum, record) => sum + record.tokens, 0);
  const kv = model.layers.reduce((sum, layer) => sum + layer.kvBytesPerToken, 0) * tokens;
  return perLayer + kv + model.headBytes + model.embeddingBytes;
}

describe('a simulated run', () => {
  it('computes each (token, expert) pair and makes each transfer once, on lanes that do one thing at a time', () => {
    fc.assert(
      fc.property(drawn, (draw) => {
        const input = inputOf(draw);
        const { requests, books, totalMs } = simulate(input);
        const tokens = input.requests.reduce((sum, record) => sum + record.tokens - 1, 0);
        expect(books.tokens).toBe(tokens);
        expect(books.gpuPairs + books.ndpPairs).toBe(tokens * moeLayerCount(input.model) * input.model.topK);
        requests.forEach((result, index) => {
          expect(result.usage.completionTokens).toBe(draw.answer + index);
          expect(result.timings.timeToFirstTokenMs).toBeGreaterThan(0);
          expect(result.timings.totalMs).toBeLessThanOrEqual(totalMs);
        });
        const spans = requests.flatMap((result) => result.trace ?? []);
        expectOrderedLanes(spans, totalMs * 1e3);
      }),
      { numRuns: 120 },
    );
  });

  it('is the same for the same input', () => {
    fc.assert(
      fc.property(drawn, (draw) => {
        expect(simulate(inputOf(draw))).toEqual(simulate(inputOf(draw)));
      }),
      { numRuns: 15 },
    );
  });

  it('chooses a prefetch width that costs no more than it brings', () => {
    const base = {
      layers: 4,
      units: 2,
      linkGBs: 56,
      slots: 120,
      prompt: 60,
      answer: 60,
      batch: 1,
      chunk: 64,
      seed: 5,
    };
    const totals = (model: string, bandwidthGBs: number) => {
      const input = inputOf({ ...base, model, bandwidthGBs, system: 'ours' });
      const of = (prefetchWidth?: number) =>
        simulate({ ...input, ...(prefetchWidth === undefined ? {} : { prefetchWidth }) }).totalMs;
      return { online: of(), fixed: [0, 1, 2, 4, 8, 16].map(of) };
    };
    for (const [model, bandwidthGBs] of [
      ['qwen3-30b-a3b', 25.6],
      ['qwen3-30b-a3b', 102.4],
      ['deepseek-v2-lite', 51.2],
    ] as const) {
      const { online, fixed } = totals(model, bandwidthGBs);
      // The knob does something, and nothing fixed is clearly better.
      expect(Math.max(...fixed) / Math.min(...fixed), model).toBeGreaterThan(1.01);
      expect(online, model).toBeLessThan(1.05 * Math.min(...fixed));
      expect(online, model).toBeLessThan(1.01 * (fixed[0] ?? 0));
    }
  });

  it('is not slower on a box that is better in everything', () => {
    const base: Drawn = {
      model: 'qwen3-30b-a3b',
      layers: 4,
      units: 4,
      bandwidthGBs: 51.2,
      linkGBs: 25,
      slots: 100,
      prompt: 40,
      answer: 25,
      batch: 1,
      chunk: 64,
      seed: 3,
      system: 'ours',
    };
    for (const system of ['monde', 'monde-split', 'tp', 'ours', 'oracle']) {
      const slow = simulate(inputOf({ ...base, system }));
      const fast = simulate(inputOf({ ...base, system, bandwidthGBs: 102.4, linkGBs: 50, slots: 200 }));
      expect(fast.totalMs, system).toBeLessThan(slow.totalMs);
    }
  });
});

/** Spans of one lane follow each other; requests of one batch share their steps' spans. */
function expectOrderedLanes(
  spans: readonly { lane: string; name: string; layer: number; startUs: number; endUs: number }[],
  endUs: number,
): void {
  const lanes = new Map<string, Map<number, number>>();
  for (const { lane, name, startUs, endUs: spanEndUs } of spans) {
    expect(spanEndUs).toBeGreaterThanOrEqual(startUs);
    if (lane === 'engine') continue;
    expect(startUs, `${lane} ${name}`).toBeGreaterThanOrEqual(0);
    if (lane !== 'transfer') expect(spanEndUs).toBeLessThanOrEqual(endUs + 1e-6);
    const own = lanes.get(lane) ?? new Map<number, number>();
    own.set(startUs, Math.max(own.get(startUs) ?? 0, spanEndUs));
    lanes.set(lane, own);
  }
  for (const [lane, own] of lanes) {
    let beforeUs = 0;
    for (const [startUs, spanEndUs] of [...own].sort(([left], [right]) => left - right)) {
      expect(startUs, `${lane} overlaps itself`).toBeGreaterThanOrEqual(beforeUs - 1e-6);
      beforeUs = spanEndUs;
    }
  }
}

describe('the simulated device', () => {
  const { device, plan } = deviceOf();

  it.each([
    ['an expert that is missing', { count: 1 }, /plan: 1 experts, but the router chose 2/],
    ['an expert twice', { expertIds: Int32Array.of(1, 1) }, /plan: experts must ascend/],
    ['one that was not chosen', { expertIds: Int32Array.of(1, 3) }, /plan: expert 3 was not chosen/],
    ['a wrong NDP group', { places: Int32Array.of(0, 0) }, /plan: NDP group 0, expert 1/],
    ['a slot that holds another', { places: Int32Array.of(-1, 0) }, /plan: slot 0 does not hold expert 1/],
    [
      'a slot that is not there',
      { places: Int32Array.of(-1, 0), slots: Int32Array.of(99, -1), transfers: Int32Array.of(1, 0) },
      /no VRAM slot 99/,
    ],
  ])('refuses a plan with %s', (_, change, message) => {
    expect(() => device.submitExperts({ ...plan, ...change })).toThrow(DeviceError);
    expect(() => device.submitExperts({ ...plan, ...change })).toThrow(message);
  });

  it('takes the plan that is right', () => {
    expect(() => device.submitExperts(plan)).not.toThrow();
  });
});

/** A device with two groups at the first layer of a step whose one token chose experts 1 and 2. */
function deviceOf() {
  const model = smallModel('mixtral-8x7b', 2);
  const unit = unitById(hardware, 'ndp-dimm');
  const times = new ModeledTimes(model, { gpu: gpuById(hardware, 'rtx5080'), unit, units: 2 }, hardware);
  const device = new SimulatedDevice(
    model.spec,
    { units: 2, tpDegree: 1, expertSlots: 4, expertBytes: 1, transferBandwidthGBs: 1, logitColumns: 2 },
    times,
    { fill: (_layer, _sequence, out, at) => out.set([1, 2], at) },
  );
  device.beginStep({
    sequences: [
      {
        tokenIds: new Int32Array(1),
        firstPosition: 0,
        blockIds: [0],
        logitRows: 1,
        cancelSlot: 1,
        ropes: [],
      },
    ],
  });
  device.runAttention(0);
  const plan = {
    layer: 0,
    count: 2,
    expertIds: Int32Array.of(1, 2),
    places: Int32Array.of(1, 0),
    slots: Int32Array.of(0, -1),
    transfers: new Int32Array(2),
  };
  return { device, plan };
}
