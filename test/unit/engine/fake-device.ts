/**
 * A Device that computes a toy model in TypeScript: the next token depends on every token of the sequence in order,
 * read back through the KV blocks, so a wrong block, position, chunk or batch changes the text. Checks the order of
 * calls. With states, a slot holds the tokens that made it, and a step spoils the slot that it writes until it is done.
 * Time is virtual.
 */
import {
  type Device,
  type DeviceInfo,
  type DeviceTraceEvent,
  type LayerAssignment,
  type LayerObservation,
  type LayerRouting,
  type StepBatch,
  type StepStatus,
  TIMED_OPS,
} from '../../../src/device/device.js';
import { KV_BLOCK_TOKENS } from '../../../src/engine/kv-blocks.js';

export const TOY = { vocabSize: 97, layers: 4, numExperts: 8, topK: 2, eosId: 96 };

/** The toy model's next token: never the end-of-text token unless `tokens` ends in one that asks for it. */
export function toyNext(tokens: ArrayLike<number>): number {
  let hash = 17;
  for (let i = 0; i < tokens.length; i++) hash = (hash * 31 + (tokens[i] ?? 0) * 7 + i) % 1_000_003;
  return hash % (TOY.vocabSize - 1);
}

export function toyAnswer(prompt: readonly number[], count: number): number[] {
  const tokens = [...prompt];
  for (let i = 0; i < count; i++) tokens.push(toyNext(tokens));
  return tokens.slice(prompt.length);
}

/** Experts of a token in a layer, ascending. */
export function toyExperts(token: number, layer: number): number[] {
  const first = (token * 5 + layer) % TOY.numExperts;
  const second = (first + 1 + (token % (TOY.numExperts - 1))) % TOY.numExperts;
  return [first, second].sort((a, b) => a - b);
}

export type FakeDeviceOptions = {
  gpu?: 'off' | 'host';
  blocks?: number;
  expertSlots?: number;
  cancelFlags?: Int32Array;
  denseLayers?: number[];
  /** A model with states: the next token depends on what its slot holds instead of the KV blocks. */
  stateSlots?: number;
  /** Next tokens for some sequences' logits instead of the toy model's. */
  next?: (tokens: number[]) => number;
};

export class FakeDevice implements Device {
  readonly info: DeviceInfo;
  steps: StepBatch[] = [];
  assignments: { layer: number; expertIds: number[]; places: number[] }[] = [];
  prefetches: { layer: number; expert: number; slot: number }[] = [];
  /** Called before each layer: the place to cancel or fail in mid-step. */
  onLayer: (layer: number) => void = () => undefined;
  tracing = false;
  #clockUs = 0;
  #kv: Int32Array;
  #states = new Map<number, readonly number[]>();
  #batch: StepBatch = { sequences: [] };
  #nextLayer = 0;
  #awaitsExperts = -1;
  #arriving: number[] = [];
  #options: FakeDeviceOptions;

  constructor(options: FakeDeviceOptions = {}) {
    this.#options = options;
    this.#kv = new Int32Array((options.blocks ?? 64) * KV_BLOCK_TOKENS).fill(-1);
    this.info = {
      units: 2,
      threadsPerUnit: 1,
      tpDegree: 2,
      ndpGroups: 1,
      gpu: options.gpu ?? 'off',
      expertSlots: options.expertSlots ?? 0,
      expertBytes: 1000,
      transferBandwidthGBs: 1,
      isa: 'none',
    };
  }

  nowUs(): number {
    return this.#clockUs;
  }

  advance(timeUs: number): void {
    this.#clockUs += timeUs;
  }

  /** What HostDevice.restart does for an engine: no GPU lane, an empty KV cache, no step under way. */
  loseGpu(): void {
    Object.assign(this.info, { gpu: 'off', expertSlots: 0 });
    this.#kv.fill(-1);
    this.#states.clear();
    this.#awaitsExperts = -1;
    this.#arriving = [];
  }

  beginStep(batch: StepBatch): void {
    for (const { tokenIds, firstPosition, blockIds } of batch.sequences) {
      const end = firstPosition + tokenIds.length;
      if (blockIds.length * KV_BLOCK_TOKENS < end)
        throw new Error(`${blockIds.length} blocks for ${end} tokens`);
    }
    this.#checkStates(batch);
    // A copy: the engine may not rely on the device reading its arrays later, nor the device on their staying.
    const sequences = batch.sequences.map((part) => ({
      ...part,
      tokenIds: part.tokenIds.slice(),
      blockIds: [...part.blockIds],
    }));
    this.#batch = { sequences };
    this.steps.push(this.#batch);
    this.#nextLayer = 0;
  }

  submitLayers(first: number, end: number): void {
    if (this.info.gpu !== 'off') throw new Error('submitLayers with a GPU lane');
    for (let layer = first; layer < end; layer++) if (this.#layer(layer) === 'aborted') return;
  }

  runAttention(layer: number): StepStatus {
    if (this.info.gpu === 'off') throw new Error('runAttention without a GPU lane');
    if (this.#awaitsExperts >= 0) throw new Error(`layer ${this.#awaitsExperts} has no plan`);
    const status = this.#layer(layer);
    if (status === 'done' && !this.#options.denseLayers?.includes(layer)) this.#awaitsExperts = layer;
    if (status === 'aborted') this.#awaitsExperts = -1;
    return status;
  }

  routing(layer: number): LayerRouting {
    const tokens = this.#batch.sequences.flatMap(({ tokenIds }) => [...tokenIds]);
    const topkIds = Int32Array.from(tokens.flatMap((token) => toyExperts(token, layer)));
    return { tokens: tokens.length, topK: TOY.topK, topkIds, topkWeights: new Float32Array(topkIds.length) };
  }

  lookahead(): undefined {
    return undefined;
  }

  submitExperts(plan: LayerAssignment): void {
    if (plan.layer !== this.#awaitsExperts) throw new Error(`experts of layer ${plan.layer} out of order`);
    this.#awaitsExperts = -1;
    const expertIds = [...plan.expertIds.subarray(0, plan.count)];
    const active = new Set(this.routing(plan.layer).topkIds);
    if (expertIds.length !== active.size || !expertIds.every((id) => active.has(id))) {
      throw new Error(`layer ${plan.layer} plans experts ${expertIds}, active are ${[...active]}`);
    }
    this.assignments.push({ layer: plan.layer, expertIds, places: [...plan.places.subarray(0, plan.count)] });
    this.#clockUs += 10;
  }

  submitPrefetch(layer: number, expert: number, slot: number): void {
    if (slot < 0 || slot >= this.info.expertSlots) throw new Error(`no slot ${slot}`);
    this.prefetches.push({ layer, expert, slot });
    this.#arriving.push(slot);
  }

  completedTransfers(): readonly number[] {
    return this.#arriving.splice(0);
  }

  runLogits(): { status: StepStatus; rows: number; logits: Float32Array } {
    if (this.#awaitsExperts >= 0) throw new Error('logits before the last experts');
    if (this.#cancelled()) return { status: 'aborted', rows: 0, logits: new Float32Array(0) };
    for (const part of this.#batch.sequences) this.#store(part);
    const afterwards = this.#batch.sequences.map((part) => this.#stateAfter(part));
    this.#batch.sequences.forEach(({ stateTarget }, index) => {
      if (stateTarget !== undefined) this.#states.set(stateTarget, afterwards[index] ?? []);
    });
    const wanting = this.#batch.sequences.flatMap((part) => {
      const end = part.firstPosition + part.tokenIds.length;
      return Array.from({ length: part.logitRows }, (_, i) => ({ part, end: end - part.logitRows + i + 1 }));
    });
    const logits = new Float32Array(wanting.length * TOY.vocabSize);
    wanting.forEach(({ part, end }, row) => {
      const state = this.#states.get(part.stateTarget ?? -1);
      const tokens =
        state?.slice(0, end) ??
        Array.from({ length: end }, (_, at) => this.#kv[slotOf(part.blockIds, at)] ?? -1);
      const next = this.#options.next?.(tokens) ?? toyNext(tokens);
      logits[row * TOY.vocabSize + next] = 10;
    });
    return { status: 'done', rows: wanting.length, logits };
  }

  observations(): readonly LayerObservation[] {
    return Array.from({ length: TOY.layers }, (_, layer) => ({
      layer,
      attentionUs: 2,
      gpuExpertsUs: this.info.gpu === 'off' ? 0 : 4,
      unitBusyUs: Float64Array.of(3, 1),
      transferUs: 0,
      transferBytes: 0,
      makespanUs: 10,
      sharedExpertUs: 0,
    }));
  }

  opTimesUs(): Float64Array {
    return Float64Array.from(TIMED_OPS, (_, op) => op);
  }

  takeTraceEvents(): readonly DeviceTraceEvent[] {
    if (!this.tracing) throw new Error('tracing is off');
    return [{ lane: 'unit 0', name: 'experts', layer: 0, startUs: this.#clockUs - 1, endUs: this.#clockUs }];
  }

  setTracing(on: boolean): void {
    this.tracing = on;
  }

  dispose(): void {}

  #layer(layer: number): StepStatus {
    if (layer !== this.#nextLayer++) throw new Error(`layer ${layer} out of order`);
    this.onLayer(layer);
    this.#clockUs += 10;
    return this.#cancelled() ? 'aborted' : 'done';
  }

  #cancelled(): boolean {
    const flags = this.#options.cancelFlags;
    return this.#batch.sequences.some(({ cancelSlot }) => cancelSlot > 0 && flags?.[cancelSlot]);
  }

  /** Every sequence of a model with states goes on from its own and writes a slot that nothing else needs. */
  #checkStates({ sequences }: StepBatch): void {
    const sources = sequences.map(({ stateSource }) => stateSource);
    const targets = sequences.map(({ stateTarget }) => stateTarget);
    if (this.#options.stateSlots === undefined) {
      if ([...sources, ...targets].some((slot) => slot !== undefined)) throw new Error('no states here');
      return;
    }
    if (new Set(targets).size < targets.length) throw new Error('a slot is written twice');
    for (const part of sequences) this.#checkState(part, sources, this.#options.stateSlots);
    for (const target of targets) if (target !== undefined) this.#states.delete(target);
  }

  #checkState(
    { stateSource, stateTarget, firstPosition }: StepBatch['sequences'][number],
    sources: readonly (number | undefined)[],
    slots: number,
  ): void {
    if (stateTarget === undefined || stateTarget >= slots) throw new Error(`no slot ${stateTarget}`);
    if (sources.includes(stateTarget)) throw new Error(`slot ${stateTarget} is read and written`);
    const before = stateSource === undefined ? [] : this.#states.get(stateSource);
    if (before?.length !== firstPosition)
      throw new Error(`a state of ${before?.length} tokens at position ${firstPosition}`);
  }

  #stateAfter({ stateSource, tokenIds }: StepBatch['sequences'][number]): number[] {
    const before = stateSource === undefined ? [] : this.#states.get(stateSource);
    if (before === undefined) throw new Error(`slot ${stateSource} holds nothing`);
    return [...before, ...tokenIds];
  }

  #store({ blockIds, tokenIds, firstPosition }: StepBatch['sequences'][number]): void {
    tokenIds.forEach((token, index) => {
      this.#kv[slotOf(blockIds, firstPosition + index)] = token;
    });
  }
}

function slotOf(blockIds: readonly number[], position: number): number {
  const block = blockIds[Math.floor(position / KV_BLOCK_TOKENS)];
  if (block === undefined) throw new Error(`no block for position ${position}`);
  return block * KV_BLOCK_TOKENS + (position % KV_BLOCK_TOKENS);
}
