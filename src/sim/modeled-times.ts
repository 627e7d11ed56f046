/**
 * OperationTimes of one model on one box: puts GPU, units, link and host together for the simulated device. Made by
 * simulator.ts and plan; all figures come from the hardware data.
 */
import type { OperationTimes } from '../device/operation-times.js';
import { GpuTimes } from './gpu-times.js';
import type { GpuProfile, HardwareData, HostProfile, UnitProfile } from './hardware.js';
import type { LayerShape, ModelShape } from './models.js';
import { UnitTimes } from './unit-times.js';
import { MAX_LOOKAHEAD_TOKENS } from './workload/lookahead.js';

/** A box: what `sim` and `plan` let the user choose. */
export type Box = {
  gpu: GpuProfile;
  unit: UnitProfile;
  units: number;
};

const ACTIVATION_BYTES = 2;

export class ModeledTimes implements OperationTimes {
  readonly routingSyncUs: number;
  readonly planUs: number;
  readonly gpuLaunchUs: number;
  readonly ndpCommandUs: number;
  readonly ndpResultUs: number;
  readonly transferUs: number;
  readonly combineUs: number;
  readonly gpu: GpuTimes;
  readonly unit: UnitTimes;
  private readonly linkBytesPerUs: number;
  private readonly attentionKernels: number;
  /** Recent results by tokens: a decode step asks for the same few again and again. */
  private readonly gpuExpert = new Map<number, number>();
  private readonly unitExpert = new Map<number, number>();

  constructor(
    private readonly model: ModelShape,
    box: Box,
    hardware: HardwareData,
    host: HostProfile = hardware.host,
    /** The next layer's router runs on this layer's hidden state too. */
    private readonly looksAhead = false,
  ) {
    this.gpu = new GpuTimes(box.gpu, hardware.kernels, hardware.expertFit);
    this.unit = new UnitTimes(box.unit, model);
    this.linkBytesPerUs = box.gpu.hostToDeviceGBs * 1e3;
    this.attentionKernels = hardware.kernels.attentionKernels;
    this.routingSyncUs = host.routingSyncUs;
    this.planUs = host.planUs;
    this.gpuLaunchUs = host.gpuLaunchUs;
    this.ndpCommandUs = host.ndpCommandUs;
    this.ndpResultUs = host.ndpResultUs;
    this.transferUs = model.expertBytes / this.linkBytesPerUs + host.transferLatencyUs;
    this.combineUs = this.gpu.kernelsUs(1);
  }

  embeddingUs(tokens: number): number {
    const { hiddenSize, bytesPerDenseWeight } = this.model;
    return this.gpu.kernelsUs(1) + this.gpu.readUs(tokens * hiddenSize * bytesPerDenseWeight);
  }

  attentionUs(layer: number, tokens: number, attendedTokens: number, cachedTokens: number): number {
    const shape = this.layer(layer);
    const { gpu, model } = this;
    const readUs = gpu.readUs(cachedTokens * shape.kvBytesPerToken);
    // Scores and values: two multiply-adds per attended position and value of a head.
    const scoresUs = gpu.computeUs(2 * attendedTokens * shape.attentionWidth, shape.attentionBytes);
    return (
      this.lookaheadUs(shape, tokens) +
      gpu.kernelsUs(this.attentionKernels + (shape.hasExperts ? 0 : 2)) +
      gpu.productUs(tokens, shape.attentionBytes, model.bytesPerDenseWeight) +
      gpu.productUs(tokens, shape.feedForwardBytes, model.bytesPerDenseWeight) +
      Math.max(readUs, scoresUs)
    );
  }

  /** Router and top-k of the next layer. */
  private lookaheadUs({ hasExperts, feedForwardBytes }: LayerShape, tokens: number): number {
    if (!this.looksAhead || !hasExperts || tokens > MAX_LOOKAHEAD_TOKENS) return 0;
    return (
      this.gpu.kernelsUs(2) + this.gpu.productUs(tokens, feedForwardBytes, this.model.bytesPerDenseWeight)
    );
  }

  logitsUs(rows: number): number {
    if (rows === 0) return 0;
    const { gpu, model } = this;
    return gpu.kernelsUs(2) + gpu.productUs(rows, model.headBytes, model.bytesPerDenseWeight);
  }

  sharedExpertUs(layer: number, tokens: number): number {
    const { sharedBytes } = this.layer(layer);
    if (sharedBytes === 0) return 0;
    return this.gpu.kernelsUs(2) + this.gpu.productUs(tokens, sharedBytes, this.model.bytesPerDenseWeight);
  }

  gpuExpertsFloorUs(tokens: number): number {
    return this.gpu.expertsFloorUs(tokens);
  }

  gpuExpertUs(tokens: number): number {
    const known = this.gpuExpert.get(tokens);
    if (known !== undefined) return known;
    const timeUs = this.gpu.expertUs(this.model.expertBytes, this.model.expertFlops, tokens);
    this.gpuExpert.set(tokens, timeUs);
    return timeUs;
  }

  unitExpertUs(tokens: number, groupUnits: number): number {
    const key = groupUnits * 2 ** 20 + tokens;
    const known = this.unitExpert.get(key);
    if (known !== undefined) return known;
    const timeUs = this.unit.expertUs(tokens, groupUnits);
    this.unitExpert.set(key, timeUs);
    return timeUs;
  }

  linkUs(tokens: number): number {
    return (tokens * this.model.hiddenSize * ACTIVATION_BYTES) / this.linkBytesPerUs;
  }

  unitLinkUs(tokens: number): number {
    return this.unit.linkUs(tokens);
  }

  private layer(layer: number): LayerShape {
    const shape = this.model.layers[layer];
    if (shape === undefined) throw new RangeError(`layer ${layer} of ${this.model.layers.length}`);
    return shape;
  }
}
