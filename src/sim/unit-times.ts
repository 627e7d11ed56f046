/**
 * Times of an NDP unit's work (or of a CPU in its place), microseconds: a slice of an expert takes the longer of
 * streaming its weights and multiplying, once for each set of tokens that the unit's buffer holds. Used by
 * modeled-times.ts; knows no schedule.
 */
import type { UnitProfile } from './hardware.js';
import type { ModelShape } from './models.js';

/** Activations are kept in FP16. */
const ACTIVATION_BYTES = 2;
const SUM_BYTES = 4;

export class UnitTimes {
  private readonly bytesPerUs: number;
  private readonly flopsPerUs: number;
  /** [groupUnits] share of an expert that the largest slice has, filled on demand. */
  private readonly shares: number[] = [];

  constructor(
    private readonly unit: UnitProfile,
    private readonly model: ModelShape,
  ) {
    this.bytesPerUs = unit.bandwidthGBs * unit.bandwidthShare * 1e3;
    this.flopsPerUs = unit.gflops * 1e3;
  }

  /** One expert with `tokens` tokens on a unit that holds one of `groupUnits` slices, the largest. */
  expertUs(tokens: number, groupUnits: number): number {
    const { model, unit } = this;
    const share = this.largestShare(groupUnits);
    const passes = Math.ceil(tokens / this.tokensPerPass());
    const readUs = (passes * model.expertBytes * share) / this.bytesPerUs;
    const computeUs = (tokens * model.expertFlops * share) / this.flopsPerUs;
    return unit.expertCommandUs + Math.max(readUs, computeUs);
  }

  /** `tokens` rows of activations over the unit's host link. */
  linkUs(tokens: number): number {
    return (tokens * this.model.hiddenSize * ACTIVATION_BYTES) / (this.unit.hostLinkGBs * 1e3);
  }

  /** Columns are dealt out in multiples of sliceColumns, so that the largest slice may exceed 1 / groupUnits. */
  private largestShare(groupUnits: number): number {
    const known = this.shares[groupUnits];
    if (known !== undefined) return known;
    const columns = this.model.expertIntermediateSize;
    const blocks = Math.ceil(columns / this.unit.sliceColumns);
    const largest = Math.min(columns, Math.ceil(blocks / groupUnits) * this.unit.sliceColumns);
    this.shares[groupUnits] = largest / columns;
    return largest / columns;
  }

  /**
   * Tokens that one pass over the weights serves: gate and up keep the tokens' input rows in the buffer, down keeps
   * the sums of their output rows (FP32); the rows between are short and go through memory.
   */
  private tokensPerPass(): number {
    const rowBytes = this.model.hiddenSize * SUM_BYTES;
    return Math.max(1, Math.floor(this.unit.bufferBytes / rowBytes));
  }
}
