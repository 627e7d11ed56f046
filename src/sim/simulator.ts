/**
 * One simulated run: the production engine, planner, cache and prefetcher over the simulated device, with a box, a
 * system and the routing of its requests. Called by the suites, `sim`, `plan` and tests. Deterministic: the only clock
 * is the device's.
 */
import type { DeviceBooks } from '../device/device-books.js';
import { SimulatedDevice } from '../device/simulated.js';
import { calibrate } from '../engine/calibrate.js';
import { Engine } from '../engine/engine.js';
import { Forward } from '../engine/forward.js';
import { blocksFor } from '../engine/kv-blocks.js';
import { createPlanner } from '../engine/planning.js';
import type { GenerateResult, RoutingRecord } from '../engine/result.js';
import { DeviceError, NearmoeError, OptionError } from '../errors.js';
import { chooseTpDegree } from '../placement/tp-degree.js';
import type { CostProfile } from '../schedule/cost-profile.js';
import type { Planner } from '../schedule/planner.js';
import type { HardwareData } from './hardware.js';
import { type Box, ModeledTimes } from './modeled-times.js';
import { denseBytes, kvBytes, type ModelShape, moeLayerCount } from './models.js';
import { createOraclePlanner } from './oracle.js';
import type { System } from './systems.js';
import { DEFAULT_RECALL, Lookahead } from './workload/lookahead.js';
import { RecordedRouting } from './workload/recorded-routing.js';

export type SimulationInput = {
  model: ModelShape;
  box: Box;
  hardware: HardwareData;
  system: System;
  /** One record for each request; all arrive at time 0. */
  requests: readonly RoutingRecord[];
  /** Experts in VRAM from the start, for systems that keep what is popular: most popular first. */
  popular?: readonly { layer: number; expert: number }[];
  /** Share of the next layer's experts that the lookahead's guesses find. Default 0.67. */
  recall?: number;
  /** Prefetches to have under way at once; chosen online where it is missing. */
  prefetchWidth?: number;
  /** Of the lookahead's mistakes. */
  seed?: number;
  /** Most tokens of one step. Default 512. */
  maxBatchTokens?: number;
  trace?: boolean;
};

export type SimulationResult = {
  requests: readonly GenerateResult[];
  /** Virtual time until the last request is done. */
  totalMs: number;
  expertSlots: number;
  tpDegree: number;
  books: DeviceBooks;
};

/** The engine needs logits to choose tokens from; nobody reads the tokens. */
const LOGIT_COLUMNS = 2;

/** Throws OptionError, MemoryError, DeviceError. */
export function simulate(input: SimulationInput): SimulationResult {
  return new Simulation(input).run();
}

class Simulation {
  readonly device: SimulatedDevice;
  readonly planner: Planner;
  private readonly results = new Map<number, GenerateResult>();
  private readonly engine: Engine;
  private readonly lookahead: Lookahead | undefined;
  private failure: unknown;

  constructor(private readonly input: SimulationInput) {
    const { model, box, system, hardware, requests } = input;
    const units = system.beside === 'nothing' ? 1 : box.units;
    // The oracle has made all plans beforehand.
    const host = system.isOracle ? { ...hardware.host, planUs: 0 } : hardware.host;
    const times = new ModeledTimes(model, box, hardware, host, system.lookahead === 'router');
    const tpDegree = tpDegreeFor(input, units, times);
    const records = new Map(requests.map((record, index) => [index + 1, record]));
    const expertSlots = slotsFor(input);
    this.device = new SimulatedDevice(
      model.spec,
      {
        units,
        tpDegree,
        expertSlots,
        expertBytes: model.expertBytes,
        transferBandwidthGBs: box.gpu.hostToDeviceGBs,
        logitColumns: LOGIT_COLUMNS,
        onRouted: (layer) => this.onRouted(layer),
        lookahead: (layer, batch) => this.lookahead?.guess(layer, batch),
      },
      times,
      new RecordedRouting(records, model.spec.layers.length),
    );
    const profile = costProfile(input, this.device, times);
    this.planner =
      system.isOracle && requests[0] !== undefined
        ? createOraclePlanner(this.device.info, model.spec, profile, requests[0])
        : createPlanner(this.device.info, model.spec, system, profile, { width: input.prefetchWidth });
    this.engine = this.createEngine();
    if (system.lookahead !== undefined) {
      const recall = system.lookahead === 'certain' ? 1 : (input.recall ?? DEFAULT_RECALL);
      this.lookahead = new Lookahead(records, model.spec.layers.length, recall, input.seed ?? 0);
    }
  }

  run(): SimulationResult {
    const { requests, trace } = this.input;
    if (this.input.system.keeps === 'popular') this.preload();
    requests.forEach(({ promptTokens, tokens }, index) => {
      this.engine.add(index + 1, index + 1, new Int32Array(promptTokens), {
        maxTokens: tokens - promptTokens,
        temperature: 0,
        repetitionPenalty: 1,
        seed: 0,
        ignoreEos: true,
        trace: trace ?? false,
      });
    });
    while (this.engine.requestCount > 0) {
      if (!this.engine.step())
        throw new DeviceError('The simulated engine has requests and nothing to compute');
      if (this.failure !== undefined) throw this.failure;
    }
    const books = { ...this.device.books, lastUs: { ...this.device.books.lastUs } };
    this.device.dispose();
    this.checkBooks();
    return {
      requests: requests.map((_, index) => this.resultOf(index + 1)),
      totalMs: this.device.nowUs() / 1e3,
      expertSlots: this.device.info.expertSlots,
      tpDegree: this.device.info.tpDegree,
      books,
    };
  }

  /** Every (token, expert) pair was computed once, and every transfer that was asked for was made once. */
  private checkBooks(): void {
    const { tokens, gpuPairs, ndpPairs, transfers } = this.device.books;
    const { model } = this.input;
    const pairs = tokens * moeLayerCount(model) * model.topK;
    const { misses, prefetched } = this.planner.cache.stats;
    if (gpuPairs + ndpPairs === pairs && transfers === misses + prefetched) return;
    throw new DeviceError(
      `The books do not balance: ${gpuPairs} + ${ndpPairs} of ${pairs} pairs, ` +
        `${transfers} of ${misses} + ${prefetched} transfers`,
    );
  }

  private resultOf(id: number): GenerateResult {
    const result = this.results.get(id);
    if (result === undefined) throw new NearmoeError('ERR_INTERNAL', `Request ${id} has no result`);
    return result;
  }

  private createEngine(): Engine {
    const { model, requests, maxBatchTokens = 512 } = this.input;
    const longest = Math.max(...requests.map(({ tokens }) => tokens));
    return new Engine(
      {
        device: this.device,
        forward: new Forward(this.device, model.spec, [], this.planner),
        vocabSize: LOGIT_COLUMNS,
        numExperts: model.experts,
        topK: model.topK,
        maxContext: longest + 1,
        kvBlocks: requests.length * (blocksFor(longest) + 1),
        limits: {
          maxBatchTokens,
          maxSequences: requests.length,
          recomputeByToken: false,
          prefixCache: false,
        },
        eosIds: new Set(),
        sampling: {},
        textStream: () => ({ push: () => '', flush: () => '' }),
        tokenBytes: () => new Uint8Array(0),
        constrain: () => undefined,
        cancelFlags: new Int32Array(requests.length + 1),
      },
      {
        step: () => undefined,
        finished: (id, result) => this.results.set(id, result),
        failed: (_, error) => {
          this.failure = error;
        },
      },
    );
  }

  /** Between a layer's routing and its plan: what the system does beside the planner. */
  private onRouted(layer: number): void {
    if (this.input.system.keeps !== 'cache') this.dropCopies(layer);
  }

  /** Gives up what the previous layer with experts copied. */
  private dropCopies(layer: number): void {
    const { planner } = this;
    const layers = this.input.model.layers.length;
    for (let back = 1; back <= layers; back++) {
      const before = (layer - back + layers) % layers;
      const plan = planner.lastPlan(before);
      if (plan.count === 0) continue;
      for (let i = 0; i < plan.count; i++) {
        if (plan.transfers[i] === 1) planner.cache.evict(before, plan.expertIds[i] as number);
      }
      return;
    }
  }

  private preload(): void {
    const { device, planner } = this;
    const free = device.info.expertSlots - STAGING_LAYERS * this.input.model.experts;
    for (const { layer, expert } of (this.input.popular ?? []).slice(0, Math.max(0, free))) {
      const slot = planner.cache.lowestSlot(planner.cache.eviction.priorities);
      planner.cache.admitPrefetch(layer, expert, slot, 0, 0);
      planner.cache.completeTransfer(slot, 0);
      planner.cache.pin(layer, expert);
      device.preload(layer, expert, slot);
    }
    planner.cache.resetStats();
  }
}

/** Layers whose copies may be in VRAM at once, for systems that pin all other slots. */
const STAGING_LAYERS = 1;

/** Slots that VRAM has room for beside dense weights, KV cache and a reserve. Throws OptionError where it has none. */
export function slotsFor({ model, box, hardware, requests, system }: SimulationInput): number {
  const tokens = requests.reduce((sum, record) => sum + record.tokens, 0);
  const freeBytes =
    box.gpu.memoryBytes - denseBytes(model) - kvBytes(model, tokens) - hardware.host.reservedBytes;
  const slots = Math.floor(freeBytes / model.expertBytes);
  if (slots < 0) {
    const neededGB = (box.gpu.memoryBytes - freeBytes) / 1e9;
    throw new OptionError(
      'vram',
      `at least ${neededGB.toFixed(1)} GB for ${model.name} without any expert`,
      `${(box.gpu.memoryBytes / 1e9).toFixed(1)} GB`,
    );
  }
  // Copies that are dropped after their layer need no more slots than a layer has experts.
  const most = system.keeps === 'nothing' ? model.experts : moeLayerCount(model) * model.experts;
  return Math.min(slots, most);
}

/** Units that experts are cut over; decode decides where the system leaves it open. */
function tpDegreeFor(
  { model, system, requests }: SimulationInput,
  units: number,
  times: ModeledTimes,
): number {
  if (system.cut === 'whole') return 1;
  if (system.cut === 'all') return units;
  const load = { units, numExperts: model.experts, topK: model.topK, tokens: requests.length };
  return chooseTpDegree(load, (tokens, groupUnits) => times.unitExpertUs(tokens, groupUnits));
}

/** What calibration measures on this device, and what it cannot: fixed times of a layer, the shared expert. */
function costProfile(
  { model, maxBatchTokens = 512 }: SimulationInput,
  device: SimulatedDevice,
  times: ModeledTimes,
): CostProfile {
  const { info } = device;
  const measured = calibrate(
    {
      measureExperts: (onGpu, tokens) =>
        onGpu ? times.gpuExpertUs(tokens) : times.unitExpertUs(tokens, info.tpDegree),
      measureTransfer: () => times.transferUs,
    },
    info,
    maxBatchTokens,
    () => 0,
  );
  const moeLayer = model.layers.findIndex(({ hasExperts }) => hasExperts);
  const sharedExpert = measured.gpuExpert.map(({ tokens }) => ({
    tokens,
    timeUs: times.sharedExpertUs(moeLayer, tokens),
  }));
  return {
    ...measured,
    ...(sharedExpert.every(({ timeUs }) => timeUs > 0) ? { sharedExpert } : {}),
    gpuOverheadUs: times.gpuLaunchUs + times.gpuExpertsFloorUs(1),
    ndpOverheadUs: times.ndpCommandUs + times.ndpResultUs + 2 * times.unitLinkUs(1) + times.linkUs(1),
  };
}
