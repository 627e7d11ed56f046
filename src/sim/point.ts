/**
 * A point of a suite: one box, one model, one load, the systems that run there; and the result cells that it yields.
 * Plain data: points go to worker threads, cells into reports. Run by run-point.ts.
 */

export type WorkloadName = { profile: string; seed: number };

export type Point = {
  suite: string;
  /** What the suite varies here, such as "vram 8 GB"; empty where units and bandwidth say it all. */
  variant: string;
  model: string;
  gpu: string;
  units: number;
  unitBandwidthGBs: number;
  /** In place of the GPU's own. */
  hostToDeviceGBs?: number;
  memoryGB?: number;
  /** Requests that run together. */
  batch: number;
  promptTokens: number;
  answerTokens: number;
  correlation: number;
  recall: number;
  /** Prefetches to have under way at once; chosen online where it is missing. */
  prefetchWidth?: number;
  /** Ids of systems.ts, in the order of the report. The two readings of MoNDE run in any case. */
  policies: readonly string[];
  /** Routing: results are means over these. */
  workloads: readonly WorkloadName[];
  /** Recorded routing in place of synthetic one; the workloads then only differ in their seeds. */
  routingFile?: string;
};

/** Shares of the total time: of each device, and of the run's phases. */
export type Breakdown = {
  /** GPU on dense work, GPU on experts, a unit on experts (mean), transfer lane. */
  gpuDenseMs: number;
  gpuExpertsMs: number;
  unitMs: number;
  transferMs: number;
  /** Waiting for a layer's experts, by what was done last: units, the GPU, or a slab on the link. */
  unitsLastMs: number;
  gpuLastMs: number;
  linkLastMs: number;
  /** What neither experts nor dense work account for: planning, latencies. */
  overheadMs: number;
};

/** Result of one system at one point, means over the workloads. */
export type Cell = Omit<Point, 'policies'> & {
  policy: string;
  title: string;
  ttftMs: number;
  /** Per token after the first, one request's view. */
  tpotMs: number;
  totalMs: number;
  /** Total time of the stronger reading of MoNDE over this one's, of each workload; mean, least and most. */
  speedupOverMonde: number;
  speedupLeast: number;
  speedupMost: number;
  speedups: number[];
  strongerMonde: string;
  /** Least possible time over this one's: 1 would be the bandwidth bound. */
  shareOfBound: number;
  boundMs: number;
  /** This one's speed-up over the oracle's; 0 where the oracle did not run. */
  shareOfOracle: number;
  /** Share of expert uses computed from VRAM without waiting for a copy. */
  hitRate: number;
  /** Largest over mean busy time of the units. */
  imbalance: number;
  expertSlots: number;
  breakdown: Breakdown;
};
