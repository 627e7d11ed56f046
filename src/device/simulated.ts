/**
 * The Device in virtual time: takes the same calls as native.ts, computes nothing, and moves a clock by what each
 * operation would take on the described hardware. Driven by engine/forward.ts, made by sim/simulator.ts, which says
 * what operations cost and how tokens route. Refuses plans that native would refuse, and keeps books of all work.
 */
import { DeviceError } from '../errors.js';
import type { ModelSpec } from '../model/model-spec.js';
import {
  type Device,
  type DeviceInfo,
  type DeviceTraceEvent,
  type LayerAssignment,
  type LayerGuess,
  type LayerObservation,
  type LayerRouting,
  type LogitsResult,
  type StepBatch,
  type StepStatus,
  TIMED_OPS,
} from './device.js';
import { type DeviceBooks, emptyBooks } from './device-books.js';
import { ExpertTimeline, type SimulatedObservation } from './expert-timeline.js';
import type { OperationTimes, RoutingSource } from './operation-times.js';
import { VirtualTransferLane } from './virtual-transfer-lane.js';

export type SimulatedOptions = Pick<
  DeviceInfo,
  'units' | 'tpDegree' | 'expertSlots' | 'expertBytes' | 'transferBandwidthGBs'
> & {
  /** Size of the rows that runLogits returns; they are all zero. */
  logitColumns: number;
  /** Called when a layer's routing is known, before it is planned. */
  onRouted?: (layer: number) => void;
  /** Guesses the experts of the MoE layer behind `layer`; none where it is missing. */
  lookahead?: (layer: number, batch: StepBatch) => LayerGuess | undefined;
};

export class SimulatedDevice implements Device {
  readonly info: DeviceInfo;
  readonly books: DeviceBooks = emptyBooks();
  private clockUs = 0;
  /** When the previous layer's output is complete. */
  private readyUs = 0;
  private batch: StepBatch = { sequences: [] };
  private lastLayer = -1;
  private tokens = 0;
  private attendedTokens = 0;
  private cachedTokens = 0;
  private tracing = false;
  private events: DeviceTraceEvent[] = [];
  private readonly lane: VirtualTransferLane;
  private readonly experts: ExpertTimeline;
  /** [layers] routing of this step; arrays grow on demand. */
  private readonly routings: LayerRouting[];
  private readonly noOpTimesUs = new Float64Array(TIMED_OPS.length);
  private readonly observed: SimulatedObservation[] = [];
  private readonly observationOf: (SimulatedObservation | undefined)[];
  private logits = new Float32Array(0);
  /** Slots whose copies ended and were not reported yet. */
  private completed: number[] = [];

  constructor(
    private readonly spec: ModelSpec,
    private readonly options: SimulatedOptions,
    private readonly times: OperationTimes,
    private readonly source: RoutingSource,
  ) {
    const { units, tpDegree, expertSlots, expertBytes, transferBandwidthGBs } = options;
    this.info = {
      units,
      threadsPerUnit: 1,
      tpDegree,
      ndpGroups: Math.ceil(units / tpDegree),
      gpu: 'simulated',
      expertSlots,
      expertBytes,
      transferBandwidthGBs,
      isa: 'virtual',
    };
    this.lane = new VirtualTransferLane(expertSlots, times.transferUs);
    this.experts = new ExpertTimeline(this.info, times, this.lane);
    this.routings = spec.layers.map(() => ({
      tokens: 0,
      topK: 0,
      topkIds: new Int32Array(0),
      topkWeights: new Float32Array(0),
    }));
    this.observationOf = spec.layers.map(({ ffn }, layer) =>
      ffn.kind === 'moe' ? emptyObservation(layer, units) : undefined,
    );
    for (const observation of this.observationOf) if (observation) this.observed.push(observation);
  }

  nowUs(): number {
    return this.clockUs;
  }

  beginStep(batch: StepBatch): void {
    this.batch = batch;
    this.tokens = 0;
    this.attendedTokens = 0;
    this.cachedTokens = 0;
    for (const { tokenIds, firstPosition } of batch.sequences) {
      const count = tokenIds.length;
      this.tokens += count;
      this.attendedTokens += count * firstPosition + (count * (count + 1)) / 2;
      this.cachedTokens += firstPosition + count;
    }
    this.books.tokens += this.tokens;
    this.readyUs = Math.max(this.readyUs, this.clockUs) + this.times.embeddingUs(this.tokens);
    for (const observation of this.observed) {
      observation.transferUs = 0;
      observation.transferBytes = 0;
    }
  }

  submitLayers(): void {
    throw new DeviceError('The simulated device runs layers with a plan only');
  }

  runAttention(layer: number): StepStatus {
    const { times } = this;
    const startUs = Math.max(this.clockUs, this.readyUs);
    const endUs = startUs + times.attentionUs(layer, this.tokens, this.attendedTokens, this.cachedTokens);
    this.books.denseUs += endUs - startUs;
    this.trace('gpu', 'attention', layer, startUs, endUs);
    const observation = this.observationOf[layer];
    if (observation === undefined) {
      this.readyUs = endUs;
      this.clockUs = startUs;
      return 'done';
    }
    observation.attentionUs = endUs - startUs;
    this.lastLayer = layer;
    this.clockUs = endUs + times.routingSyncUs;
    this.route(layer);
    this.options.onRouted?.(layer);
    return 'done';
  }

  routing(layer: number): LayerRouting {
    const routing = this.routings[layer];
    if (routing === undefined || routing.topK === 0) throw new DeviceError(`Layer ${layer} was not routed`);
    return routing;
  }

  lookahead(): LayerGuess | undefined {
    return this.options.lookahead?.(this.lastLayer, this.batch);
  }

  submitExperts(assignment: LayerAssignment): void {
    const { layer } = assignment;
    const observation = this.observationOf[layer];
    if (observation === undefined) throw new DeviceError(`Layer ${layer} has no experts`);
    // The host has planned until now.
    this.clockUs += this.times.planUs;
    this.collectTransfers();
    const result = this.experts.run(assignment, this.routing(layer), this.clockUs, observation);
    this.readyUs = result.readyUs;
    this.books.gpuPairs += result.gpuPairs;
    this.books.ndpPairs += result.ndpPairs;
    this.books.gpuExpertsUs += result.gpuUs;
    this.books.lastUs[result.last] += observation.makespanUs;
    this.books.unitUs += mean(observation.unitBusyUs);
    if (this.tracing) this.events.push(...this.experts.traceEvents());
  }

  submitPrefetch(layer: number, expert: number, slot: number): void {
    this.experts.occupy(slot, layer, expert);
    this.lane.prefetch(slot, layer, this.clockUs);
  }

  completedTransfers(): readonly number[] {
    this.collectTransfers();
    if (this.completed.length === 0) return NOTHING;
    return this.completed.splice(0);
  }

  runLogits(): LogitsResult {
    const rows = this.batch.sequences.reduce((sum, { logitRows }) => sum + logitRows, 0);
    const startUs = Math.max(this.clockUs, this.readyUs);
    const endUs = startUs + this.times.logitsUs(rows);
    this.books.denseUs += endUs - startUs;
    this.trace('gpu', 'logits', -1, startUs, endUs);
    this.readyUs = endUs;
    this.clockUs = endUs + this.times.routingSyncUs;
    const size = rows * this.options.logitColumns;
    if (this.logits.length < size) this.logits = new Float32Array(size);
    return { status: 'done', rows, logits: this.logits.subarray(0, size) };
  }

  observations(): readonly LayerObservation[] {
    return this.observed;
  }

  opTimesUs(): Float64Array {
    return this.noOpTimesUs;
  }

  takeTraceEvents(): readonly DeviceTraceEvent[] {
    this.collectTransfers();
    return this.events.splice(0);
  }

  setTracing(on: boolean): void {
    this.tracing = on;
    this.experts.tracing = on;
  }

  /** Idempotent. Transfers under way are made, in the books too, without moving the clock. */
  dispose(): void {
    this.collectTransfers(Number.POSITIVE_INFINITY);
  }

  /** Puts a slab into a slot before the clock runs, as a system with a fixed placement does when it loads. */
  preload(layer: number, expert: number, slot: number): void {
    if (this.clockUs > 0) throw new DeviceError('Slabs can only be preloaded before the first step');
    this.experts.occupy(slot, layer, expert);
  }

  private collectTransfers(byUs = this.clockUs): void {
    for (const { slot, layer, startUs, endUs } of this.lane.takeFinished(byUs)) {
      this.completed.push(slot);
      this.books.transfers++;
      this.books.transferUs += endUs - startUs;
      this.trace('transfer', 'transfer', layer, startUs, endUs);
      const observation = this.observationOf[layer];
      if (observation === undefined) continue;
      observation.transferUs += endUs - startUs;
      observation.transferBytes += this.info.expertBytes;
    }
  }

  private route(layer: number): void {
    const ffn = this.spec.layers[layer]?.ffn;
    const routing = this.routings[layer];
    if (ffn?.kind !== 'moe' || routing === undefined) return;
    const { numExpertsPerTok: topK } = ffn;
    const pairs = this.tokens * topK;
    if (routing.topkIds.length < pairs) {
      routing.topkIds = new Int32Array(pairs);
      routing.topkWeights = new Float32Array(pairs).fill(1 / topK);
    }
    routing.tokens = this.tokens;
    routing.topK = topK;
    let at = 0;
    for (const sequence of this.batch.sequences) {
      this.source.fill(layer, sequence, routing.topkIds, at);
      at += sequence.tokenIds.length * topK;
    }
  }

  private trace(lane: string, name: string, layer: number, startUs: number, endUs: number): void {
    if (this.tracing) this.events.push({ lane, name, layer, startUs, endUs });
  }
}

const NOTHING: readonly number[] = [];

function mean(values: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] as number;
  return sum / values.length;
}

function emptyObservation(layer: number, units: number): SimulatedObservation {
  return {
    layer,
    attentionUs: 0,
    gpuExpertsUs: 0,
    sharedExpertUs: 0,
    unitBusyUs: new Float64Array(units),
    transferUs: 0,
    transferBytes: 0,
    makespanUs: 0,
  };
}
