/**
 * What a simulated device has done since it was made, by side. Kept by simulated.ts; the simulator holds it against what
 * was asked for, and reports are made of it.
 */
import type { LastSide } from './expert-timeline.js';

/** What was done since the device was made. */
export type DeviceBooks = {
  tokens: number;
  /** (token, expert) pairs by the side that computed them. */
  gpuPairs: number;
  ndpPairs: number;
  transfers: number;
  /** GPU on attention, dense blocks, routers and logits; GPU on experts; mean over the units; transfer lane. */
  denseUs: number;
  gpuExpertsUs: number;
  unitUs: number;
  transferUs: number;
  /** From each plan's submission until its last expert was done, by the side that was last. */
  lastUs: Record<LastSide, number>;
};

export function emptyBooks(): DeviceBooks {
  return {
    tokens: 0,
    gpuPairs: 0,
    ndpPairs: 0,
    transfers: 0,
    denseUs: 0,
    gpuExpertsUs: 0,
    unitUs: 0,
    transferUs: 0,
    lastUs: { units: 0, gpu: 0, link: 0 },
  };
}
