/**
 * What the simulated device must be told: how long each operation takes on the described hardware, and which experts
 * tokens choose. Implemented in src/sim, used by simulated.ts and expert-timeline.ts. Types only; times in us.
 */
import type { StepSequence } from './device.js';

export interface OperationTimes {
  /** Between the GPU's routing result and the host's reading it. */
  readonly routingSyncUs: number;
  /** The host's planning of one layer. */
  readonly planUs: number;
  /** From the host's call to the GPU's start. */
  readonly gpuLaunchUs: number;
  /** From the host's call to the units' start, and from their end to the result's arrival. */
  readonly ndpCommandUs: number;
  readonly ndpResultUs: number;
  /** One expert's slab over the link, alone. */
  readonly transferUs: number;
  /** Adding up what GPU and units computed. */
  readonly combineUs: number;

  embeddingUs(tokens: number): number;
  /**
   * Attention and router of a layer with experts; all of a dense layer. `attendedTokens`: positions attended, summed
   * over the tokens; `cachedTokens`: positions whose keys and values are read, summed over the sequences.
   */
  attentionUs(layer: number, tokens: number, attendedTokens: number, cachedTokens: number): number;
  logitsUs(rows: number): number;
  /** The expert that every token passes, on the GPU; 0 where there is none. */
  sharedExpertUs(layer: number, tokens: number): number;
  /** Fixed GPU time of a layer's experts, by the most tokens that one of them has. */
  gpuExpertsFloorUs(tokens: number): number;
  /** One expert on the GPU, its slab in VRAM. */
  gpuExpertUs(tokens: number): number;
  /** The slice of one expert on the slowest of `groupUnits` units that share it. */
  unitExpertUs(tokens: number, groupUnits: number): number;
  /** One direction of `tokens` rows of activations between GPU and host. */
  linkUs(tokens: number): number;
  /** The same between host and one unit. */
  unitLinkUs(tokens: number): number;
}

export interface RoutingSource {
  /** Writes the experts of each token of a sequence's part, ascending inside a token, to out[at ...]. */
  fill(layer: number, sequence: StepSequence, out: Int32Array, at: number): void;
}
