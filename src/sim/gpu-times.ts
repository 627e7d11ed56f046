/**
 * Times of a GPU's work, microseconds: matrix products by size, and experts by a law fitted to measured MoE layers
 * (bench/validate/gpu-expert-fit.mjs, hardware/gpu-expert-fit.json). Used by operation-times.ts; knows no schedule.
 */
import type { ExpertFit, GpuProfile, KernelProfile } from './hardware.js';

/** What a device can do at most, in bytes and operations per microsecond. */
export type DeviceRates = { bytesPerUs: number; flopsPerUs: number };

export function ratesOf(gpu: Pick<GpuProfile, 'memoryBandwidthGBs' | 'fp16Tflops'>): DeviceRates {
  return { bytesPerUs: gpu.memoryBandwidthGBs * 1e3, flopsPerUs: gpu.fp16Tflops * 1e6 };
}

/** One expert with `tokens` tokens inside a layer's launch, without the launch's fixed time. */
export function fittedExpertUs(
  fit: Pick<ExpertFit, 'bandwidthShare' | 'computeShare' | 'sharpness'>,
  rates: DeviceRates,
  weightBytes: number,
  flopsPerToken: number,
  tokens: number,
): number {
  const readUs = weightBytes / (rates.bytesPerUs * fit.bandwidthShare);
  const computeUs = (flopsPerToken * tokens) / (rates.flopsPerUs * fit.computeShare);
  return (readUs ** fit.sharpness + computeUs ** fit.sharpness) ** (1 / fit.sharpness);
}

export class GpuTimes {
  private readonly rates: DeviceRates;

  constructor(
    gpu: GpuProfile,
    private readonly kernels: KernelProfile,
    private readonly fit: ExpertFit,
  ) {
    this.rates = ratesOf(gpu);
  }

  /** Reading weights or KV at the speed that streamed reads reach, without a launch. */
  readUs(sizeBytes: number): number {
    return sizeBytes / (this.rates.bytesPerUs * this.kernels.gemvBandwidthShare);
  }

  /** Operations of a product whose weights have `weightBytes`, without reading them. */
  computeUs(flops: number, weightBytes: number): number {
    return flops / (this.rates.flopsPerUs * this.gemmShare(weightBytes));
  }

  /** A product of `tokens` rows with a weight matrix: the longer of reading and computing, without a launch. */
  productUs(tokens: number, weightBytes: number, bytesPerWeight: number): number {
    const flops = (2 * tokens * weightBytes) / bytesPerWeight;
    return Math.max(this.readUs(weightBytes), this.computeUs(flops, weightBytes));
  }

  /** `count` launches that follow each other on the device, with nothing in them. */
  kernelsUs(count: number): number {
    return count * this.kernels.gemvFloorUs;
  }

  expertUs(weightBytes: number, flopsPerToken: number, tokens: number): number {
    return fittedExpertUs(this.fit, this.rates, weightBytes, flopsPerToken, tokens);
  }

  /** Fixed time of a layer's experts: bare products for a few tokens, grouped ones with a permutation for more. */
  expertsFloorUs(tokens: number): number {
    const { expertKernels, maxGemvTokens } = this.kernels;
    return tokens <= maxGemvTokens ? this.kernelsUs(expertKernels) : this.fit.floorUs;
  }

  /** Interpolated over the logarithm of the weights' size. */
  private gemmShare(weightBytes: number): number {
    const points = this.kernels.gemmShares;
    let low = points[0];
    for (const high of points) {
      if (low === undefined || weightBytes <= low.weightBytes) break;
      if (weightBytes < high.weightBytes) {
        const along = Math.log(weightBytes / low.weightBytes) / Math.log(high.weightBytes / low.weightBytes);
        return low.share + (high.share - low.share) * along;
      }
      low = high;
    }
    return low?.share ?? 1;
  }
}
