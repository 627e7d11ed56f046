/**
 * What a layer may have in attention's place: parts that keep a state of fixed size for each sequence. A part of
 * ModelSpec (model-spec.ts).
 */
/**
 * Gated delta net (Yang et al. 2024, arXiv 2412.06464): q, k and v pass a causal convolution with SiLU; each value head
 * has a matrix [keyHeadDim, valueHeadDim] for a state, which decays, learns v under k by the delta rule, and is read by
 * q. q and k are scaled to length 1; the output is normalised and gated.
 */
export type GatedDeltaSpec = {
  kind: 'gated-delta';
  /** Inputs that a convolution sees, the token's own among them. */
  convWidth: number;
  numKeyHeads: number;
  numValueHeads: number;
  keyHeadDim: number;
  valueHeadDim: number;
  /** Value heads of one key head lie side by side, or (llama.cpp's files) one in each run of numKeyHeads. */
  valueHeadOrder: 'grouped' | 'tiled';
};

/** Gated short convolution (LFM2): outputGate * conv(gate * input) of each channel, then an output projection. */
export type ShortConvSpec = { kind: 'short-conv'; convWidth: number; channels: number };

export type RecurrentSpec = GatedDeltaSpec | ShortConvSpec;
