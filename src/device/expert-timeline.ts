/**
 * One layer's experts in virtual time: GPU, units and transfers start when the plan is submitted and run side by side.
 * Used by simulated.ts only. The GPU computes what is resident first, then slabs as they arrive; each NDP group
 * computes its experts one after the other. Checks plans as native/runtime/compute_device_step.cc does.
 */
import { DeviceError } from '../errors.js';
import {
  type DeviceInfo,
  type DeviceTraceEvent,
  GPU_PLACE,
  type LayerAssignment,
  type LayerObservation,
  type LayerRouting,
} from './device.js';
import type { OperationTimes } from './operation-times.js';
import type { VirtualTransferLane } from './virtual-transfer-lane.js';

const NONE = -1;

/** Tells the shared expert's time apart. */
export type SimulatedObservation = LayerObservation & { sharedExpertUs: number };

/** Which side finished last; the GPU waiting for a slab counts as the link. */
export type LastSide = 'units' | 'gpu' | 'link';

/** `gpuUs`: GPU time on shared and routed experts. */
export type ExpertsResult = {
  readyUs: number;
  gpuPairs: number;
  ndpPairs: number;
  gpuUs: number;
  last: LastSide;
};

export class ExpertTimeline {
  tracing = false;
  private readonly result: ExpertsResult = {
    readyUs: 0,
    gpuPairs: 0,
    ndpPairs: 0,
    gpuUs: 0,
    last: 'units',
  };
  /** [slots] layer and expert that the slot holds or will hold. */
  private readonly slotLayers: Int32Array;
  private readonly slotExperts: Int32Array;
  /** [experts] tokens of each expert in this layer. */
  private counts = new Int32Array(0);
  /** [ndpGroups] busy time and tokens. */
  private readonly groupUs: Float64Array;
  private readonly groupTokens: Float64Array;
  /** GPU experts of the plan by arrival: tokens and when the slab is whole. */
  private gpuTokens: number[] = [];
  private gpuReadyUs: number[] = [];
  private gpuWaited = false;
  private events: DeviceTraceEvent[] = [];

  constructor(
    private readonly info: DeviceInfo,
    private readonly times: OperationTimes,
    private readonly lane: VirtualTransferLane,
  ) {
    this.slotLayers = new Int32Array(info.expertSlots).fill(NONE);
    this.slotExperts = new Int32Array(info.expertSlots).fill(NONE);
    this.groupUs = new Float64Array(info.ndpGroups);
    this.groupTokens = new Float64Array(info.ndpGroups);
  }

  /** A slab is copied into a slot. */
  occupy(slot: number, layer: number, expert: number): void {
    if (slot < 0 || slot >= this.info.expertSlots) throw new DeviceError(`There is no VRAM slot ${slot}`);
    this.slotLayers[slot] = layer;
    this.slotExperts[slot] = expert;
  }

  /** Runs a plan submitted at `submitUs`; fills the layer's observation. The result is reused. */
  run(
    plan: LayerAssignment,
    routing: LayerRouting,
    submitUs: number,
    observation: SimulatedObservation,
  ): ExpertsResult {
    const { result, times } = this;
    result.gpuPairs = 0;
    result.ndpPairs = 0;
    this.events = [];
    this.countTokens(plan, routing);
    this.collectUnitWork(plan);
    const ndpEndUs = this.runUnits(plan.layer, routing.tokens, submitUs, observation);
    this.collectGpuWork(plan, submitUs);
    const gpuEndUs = this.runGpu(plan.layer, routing.tokens, submitUs, observation);
    const endUs = Math.max(gpuEndUs, ndpEndUs);
    observation.makespanUs = endUs - submitUs;
    result.last = ndpEndUs >= gpuEndUs ? 'units' : this.gpuWaited ? 'link' : 'gpu';
    result.readyUs = endUs + times.combineUs;
    return result;
  }

  /** Events of the last run. */
  traceEvents(): readonly DeviceTraceEvent[] {
    return this.events;
  }

  /** Tokens of each expert; refuses a plan that misses an active expert, names another, or names one twice. */
  private countTokens(plan: LayerAssignment, routing: LayerRouting): void {
    const pairs = routing.tokens * routing.topK;
    const ids = routing.topkIds;
    let highest = 0;
    for (let i = 0; i < pairs; i++) highest = Math.max(highest, ids[i] as number);
    if (highest >= this.counts.length) this.counts = new Int32Array(highest + 1);
    const { counts } = this;
    counts.fill(0);
    let active = 0;
    for (let i = 0; i < pairs; i++) {
      const expert = ids[i] as number;
      const count = counts[expert] as number;
      if (count === 0) active++;
      counts[expert] = count + 1;
    }
    if (active !== plan.count) {
      throw new DeviceError(`plan: ${plan.count} experts, but the router chose ${active}`);
    }
    let previous = NONE;
    for (let i = 0; i < plan.count; i++) {
      const expert = plan.expertIds[i] as number;
      if (expert <= previous) throw new DeviceError('plan: experts must ascend');
      if (!((counts[expert] ?? 0) > 0)) {
        throw new DeviceError(`plan: expert ${expert} was not chosen by the router`);
      }
      previous = expert;
    }
  }

  private collectUnitWork(plan: LayerAssignment): void {
    const { info, times, result, groupUs, groupTokens } = this;
    groupUs.fill(0);
    groupTokens.fill(0);
    for (let i = 0; i < plan.count; i++) {
      const place = plan.places[i] as number;
      if (place === GPU_PLACE) continue;
      const expert = plan.expertIds[i] as number;
      if (place !== expert % info.ndpGroups)
        throw new DeviceError(`plan: NDP group ${place}, expert ${expert}`);
      const tokens = this.counts[expert] as number;
      groupUs[place] = (groupUs[place] as number) + times.unitExpertUs(tokens, this.unitsOf(place));
      groupTokens[place] = (groupTokens[place] as number) + tokens;
      result.ndpPairs += tokens;
    }
  }

  /** Starts on-demand transfers in the plan's order; sorts the GPU's experts by arrival. */
  private collectGpuWork(plan: LayerAssignment, submitUs: number): void {
    this.gpuTokens.length = 0;
    this.gpuReadyUs.length = 0;
    for (let i = 0; i < plan.count; i++) {
      if (plan.places[i] !== GPU_PLACE) continue;
      const tokens = this.counts[plan.expertIds[i] as number] as number;
      this.addGpuExpert(plan, i, tokens, submitUs);
      this.result.gpuPairs += tokens;
    }
  }

  private addGpuExpert(plan: LayerAssignment, i: number, tokens: number, submitUs: number): void {
    const slot = plan.slots[i] as number;
    const expert = plan.expertIds[i] as number;
    if (plan.transfers[i] === 1) {
      this.occupy(slot, plan.layer, expert);
      this.lane.onDemand(slot, plan.layer, submitUs);
    } else if (this.slotLayers[slot] !== plan.layer || this.slotExperts[slot] !== expert) {
      throw new DeviceError(`plan: slot ${slot} does not hold expert ${expert} of layer ${plan.layer}`);
    }
    const readyUs = this.lane.readyUs(slot);
    let at = this.gpuTokens.length;
    for (; at > 0 && (this.gpuReadyUs[at - 1] as number) > readyUs; at--) {
      this.gpuReadyUs[at] = this.gpuReadyUs[at - 1] as number;
      this.gpuTokens[at] = this.gpuTokens[at - 1] as number;
    }
    this.gpuReadyUs[at] = readyUs;
    this.gpuTokens[at] = tokens;
  }

  /** Shared expert, then routed ones as their slabs are there; returns when the GPU is done. */
  private runGpu(layer: number, tokens: number, submitUs: number, observation: SimulatedObservation): number {
    const { times, gpuTokens, gpuReadyUs } = this;
    const sharedUs = times.sharedExpertUs(layer, tokens);
    let endUs = submitUs + (sharedUs > 0 || gpuTokens.length > 0 ? times.gpuLaunchUs : 0);
    if (sharedUs > 0) this.trace('gpu', 'shared expert', layer, endUs, endUs + sharedUs);
    endUs += sharedUs;
    let busyUs = 0;
    let most = 0;
    this.gpuWaited = false;
    for (const count of gpuTokens) most = Math.max(most, count);
    let floorUs = gpuTokens.length > 0 ? times.gpuExpertsFloorUs(most) : 0;
    for (let i = 0; i < gpuTokens.length; i++) {
      const readyUs = gpuReadyUs[i] as number;
      // Work that had to wait for its slab is a launch of its own.
      if (readyUs > endUs) {
        this.gpuWaited = true;
        endUs = readyUs;
        floorUs = Math.max(floorUs, times.gpuExpertsFloorUs(1));
      }
      const timeUs = floorUs + times.gpuExpertUs(gpuTokens[i] as number);
      floorUs = 0;
      this.trace('gpu', 'experts', layer, endUs, endUs + timeUs);
      endUs += timeUs;
      busyUs += timeUs;
    }
    observation.gpuExpertsUs = busyUs;
    observation.sharedExpertUs = sharedUs;
    this.result.gpuUs = sharedUs + busyUs;
    return endUs;
  }

  /** Activations out, experts of each group, partial sums back; returns when the last result is there. */
  private runUnits(
    layer: number,
    tokens: number,
    submitUs: number,
    observation: SimulatedObservation,
  ): number {
    const { info, times, groupUs, groupTokens, lane } = this;
    observation.unitBusyUs.fill(0);
    let most = 0;
    let back = 0;
    for (let group = 0; group < info.ndpGroups; group++) {
      const rows = Math.min(tokens, groupTokens[group] as number);
      most = Math.max(most, rows);
      back += rows * this.unitsOf(group);
    }
    if (most === 0) return submitUs;
    const outUs = times.linkUs(most);
    const backUs = times.linkUs(back);
    lane.yieldTo(submitUs, outUs + backUs);
    let endUs = submitUs;
    for (let group = 0; group < info.ndpGroups; group++) {
      const busyUs = groupUs[group] as number;
      if (busyUs === 0) continue;
      const rows = Math.min(tokens, groupTokens[group] as number);
      const startUs = submitUs + times.ndpCommandUs + outUs + times.unitLinkUs(rows);
      const first = group * info.tpDegree;
      for (let unit = first; unit < first + this.unitsOf(group); unit++) {
        observation.unitBusyUs[unit] = busyUs;
        if (this.tracing) this.trace(`unit ${unit}`, 'experts', layer, startUs, startUs + busyUs);
      }
      endUs = Math.max(endUs, startUs + busyUs + times.unitLinkUs(rows));
    }
    return endUs + backUs + times.ndpResultUs;
  }

  private unitsOf(group: number): number {
    return Math.min(this.info.tpDegree, this.info.units - group * this.info.tpDegree);
  }

  private trace(lane: string, name: string, layer: number, startUs: number, endUs: number): void {
    if (this.tracing) this.events.push({ lane, name, layer, startUs, endUs });
  }
}
