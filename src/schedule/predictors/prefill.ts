/**
 * Predictor `prefill`: an expert is expected to be used as often as it was: what the prompt's prefill activated, kept
 * up to date in decode. Needs no calibration data set (dataset-free prefetch of Wu et al. 2026, arXiv 2601.03992; the
 * decay is ours). Registered in registry.ts.
 */
import { ActivationRates, type RateOptions } from '../../placement/activation-rates.js';
import type { LayerWork } from '../plan.js';
import type { ExpertPredictor, PrefetchCandidates, SlotLookup } from './predictor.js';

/** Activations that the rates of two experts differ by for no reason; chosen with bench/schedule-traces.mjs. */
const NOISE_ACTIVATIONS = 1;

const NONE = -1;

export class PrefillPredictor implements ExpertPredictor {
  readonly name = 'prefill';
  readonly scores: Float64Array;
  readonly noise: number;
  private readonly activations: ActivationRates;
  /** [layers] the layer's best absent expert as a key, NONE where there is none worth it. */
  private readonly bestKeys: Int32Array;
  /** [layers] 1: bestKeys has to be found anew. */
  private readonly stale: Uint8Array;
  /** [layers * numExperts] 1: in the list that candidates() is making. */
  private readonly listed: Uint8Array;

  constructor(
    private readonly layers: number,
    private readonly numExperts: number,
    options: RateOptions & { noiseActivations?: number } = {},
  ) {
    this.activations = new ActivationRates(layers, numExperts, options);
    this.scores = this.activations.rates;
    this.noise = (options.noiseActivations ?? NOISE_ACTIVATIONS) * this.activations.resolution;
    this.bestKeys = new Int32Array(layers).fill(NONE);
    this.stale = new Uint8Array(layers);
    this.listed = new Uint8Array(layers * numExperts);
  }

  observe(work: LayerWork): void {
    this.activations.observe(work, work.tokens);
    this.stale[work.layer] = 1;
  }

  candidates(_layer: number, vram: SlotLookup, capacity: number, out: PrefetchCandidates): void {
    out.count = 0;
    while (out.count < capacity) {
      const layer = this.bestLayer(vram);
      if (layer === NONE) break;
      const key = this.bestKeys[layer] as number;
      out.keys[out.count] = key;
      out.scores[out.count] = this.scores[key] as number;
      out.count++;
      this.listed[key] = 1;
      this.stale[layer] = 1;
    }
    for (let i = 0; i < out.count; i++) {
      this.listed[out.keys[i] as number] = 0;
      this.stale[Math.floor((out.keys[i] as number) / this.numExperts)] = 1;
    }
  }

  /** Layer of the best absent expert that is not listed yet, NONE where there is none. */
  private bestLayer(vram: SlotLookup): number {
    let best = NONE;
    let highest = 0;
    for (let layer = 0; layer < this.layers; layer++) {
      if (this.stale[layer] === 1 || this.isTaken(layer, vram)) this.refresh(layer, vram);
      const key = this.bestKeys[layer] as number;
      if (key === NONE || (this.scores[key] as number) <= highest) continue;
      highest = this.scores[key] as number;
      best = layer;
    }
    return best;
  }

  /** True where the layer's best absent expert has come to VRAM since it was found. */
  private isTaken(layer: number, vram: SlotLookup): boolean {
    const key = this.bestKeys[layer] as number;
    return key !== NONE && vram.slotOf(layer, key - layer * this.numExperts) >= 0;
  }

  private refresh(layer: number, vram: SlotLookup): void {
    const base = layer * this.numExperts;
    let best = NONE;
    let highest = 0;
    for (let expert = 0; expert < this.numExperts; expert++) {
      const score = this.scores[base + expert] as number;
      if (score <= highest || this.listed[base + expert] === 1 || vram.slotOf(layer, expert) >= 0) continue;
      highest = score;
      best = base + expert;
    }
    this.bestKeys[layer] = best;
    this.stale[layer] = 0;
  }
}
