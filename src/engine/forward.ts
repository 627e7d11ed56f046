/**
 * One step through the model: hands the batch to the device, and where there is a GPU lane, plans each MoE layer as
 * soon as its routing is known. Called by engine.ts; the only file that drives a Device. Does not choose tokens.
 */
import type { CandidateRows, Device, LogitsResult, StepSequence, StepStatus } from '../device/device.js';
import type { ModelSpec } from '../model/model-spec.js';
import type { Rope } from '../model/rope.js';
import { createLayerWork, groupRouting } from '../schedule/plan.js';
import type { Planner } from '../schedule/planner.js';
import { addObservations, noCosts, type StepCosts, setExpertCounts } from './accounting.js';
import type { StepEntry } from './batcher.js';

export type StepOutput = {
  status: StepStatus;
  /** [rows * vocabSize], the rows that each entry's sequence needs, in order; valid until the next step. */
  logits: Float32Array;
  candidates: CandidateRows | undefined;
  rows: number;
  costs: StepCosts;
};

export class Forward {
  readonly moeLayers: readonly number[];
  /** There exactly where the device has a GPU lane; recovery.ts takes it away with the GPU. */
  planner: Planner | undefined;
  #device: Device;
  #ropes: readonly Rope[];
  #layerCount: number;
  #work: ReturnType<typeof createLayerWork>;

  constructor(device: Device, spec: ModelSpec, ropes: readonly Rope[], planner: Planner | undefined) {
    this.planner = planner;
    this.#device = device;
    this.#ropes = ropes;
    this.#layerCount = spec.layers.length;
    this.moeLayers = spec.layers.flatMap(({ ffn }, layer) => (ffn.kind === 'moe' ? [layer] : []));
    const expertCounts = spec.layers.map(({ ffn }) => (ffn.kind === 'moe' ? ffn.numExperts : 0));
    this.#work = createLayerWork(Math.max(0, ...expertCounts));
  }

  /** Computes the entries. 'aborted': a cancel flag was set, nothing has changed. Throws DeviceError. */
  run(entries: readonly StepEntry[]): StepOutput {
    const device = this.#device;
    const costs = noCosts(device.info.units);
    const startUs = device.nowUs();
    const countsBefore = this.planner && { ...this.planner.cache.stats };
    device.beginStep({ sequences: entries.map((entry) => this.#part(entry)) });
    let status: StepStatus = this.planner ? this.#runPlanned(this.planner, costs) : 'done';
    if (!this.planner) device.submitLayers(0, this.#layerCount);
    let output: Omit<LogitsResult, 'status'> = { rows: 0, logits: new Float32Array(0) };
    if (status === 'done') {
      const result = device.runLogits(Math.max(...entries.map(({ sequence }) => sequence.candidates)));
      status = result.status;
      output = result;
    }
    if (status === 'done') {
      const observations = device.observations();
      addObservations(costs, observations, device.opTimesUs());
      this.planner?.observe(observations);
    }
    if (this.planner && countsBefore) setExpertCounts(costs, countsBefore, this.planner.cache.stats);
    else if (status === 'done') this.#countExperts(costs);
    costs.steps = 1;
    costs.stepUs = device.nowUs() - startUs;
    const { rows, logits, candidates } = output;
    return { status, rows, logits, candidates, costs };
  }

  #runPlanned(planner: Planner, costs: StepCosts): StepStatus {
    const device = this.#device;
    let nextMoe = 0;
    for (let layer = 0; layer < this.#layerCount; layer++) {
      if (device.runAttention(layer) === 'aborted') return 'aborted';
      if (layer !== this.moeLayers[nextMoe]) continue;
      nextMoe++;
      const startUs = device.nowUs();
      planner.completeTransfers(device.completedTransfers(), startUs);
      device.submitExperts(planner.plan(layer, device.routing(layer), startUs));
      const guess = device.lookahead();
      if (guess !== undefined) planner.hint(guess);
      const { count, layers, experts, slots } = planner.prefetch(layer, device.nowUs());
      for (let i = 0; i < count; i++) device.submitPrefetch(layers[i] ?? 0, experts[i] ?? 0, slots[i] ?? 0);
      costs.scheduleUs += device.nowUs() - startUs;
    }
    return 'done';
  }

  /** Without a GPU lane nothing was planned; the routing still tells which experts the units computed. */
  #countExperts(costs: StepCosts): void {
    for (const layer of this.moeLayers) {
      groupRouting(layer, this.#device.routing(layer), this.#work);
      costs.experts.activated += this.#work.count;
    }
    costs.experts.onNdp = costs.experts.activated;
  }

  #part({ sequence, count }: StepEntry): StepSequence {
    const end = sequence.computed + count;
    return {
      tokenIds: sequence.tokens(sequence.computed, end),
      firstPosition: sequence.computed,
      blockIds: sequence.blockIds,
      stateSource: sequence.states[0],
      stateTarget: sequence.nextStates[0],
      logitRows: sequence.logitRows(count),
      cancelSlot: sequence.cancelSlot,
      ropes: this.#ropes.map((rope) => rope.at(sequence.ropeLength(count))),
    };
  }
}
