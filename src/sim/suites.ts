/**
 * The suites by name: which points they consist of. Called by `sim` and tests; runs nothing. A suite's points are
 * plain data, so that any of them can be run alone.
 */
import { OptionError } from '../errors.js';
import type { Point, WorkloadName } from './point.js';
import { DEFAULT_RECALL } from './workload/lookahead.js';

/** The setting of Wu et al. (arXiv 2601.03992), as far as public notes tell it; the last three models are our choice. */
export const PAPER_MODELS = [
  'qwen3-30b-a3b',
  'mixtral-8x7b',
  'deepseek-v2-lite',
  'qwen1.5-moe-a2.7b',
] as const;
export const PAPER_UNITS = [2, 3, 4, 5, 6] as const;
export const UNIT_BANDWIDTHS = [25.6, 51.2, 102.4] as const;
const PROFILES = ['gpt-oss-20b', 'deepseek-v2-lite', 'olmoe-1b-7b', 'kimi-linear-48b'] as const;

export type SuiteName = 'paper' | 'ablation' | 'sweep' | 'edge';
export const SUITES: readonly SuiteName[] = ['paper', 'ablation', 'sweep', 'edge'];

/** What all points of a run share; the first seed, routing profiles, and a smaller load for quick looks. */
export type SuiteOptions = { seed?: number; promptTokens?: number; answerTokens?: number };

/** Throws OptionError for an unknown name. */
export function suitePoints(name: string, options: SuiteOptions = {}): Point[] {
  switch (name) {
    case 'paper':
      return paper(options);
    case 'ablation':
      return ablation(options);
    case 'sweep':
      return sweep(options);
    case 'edge':
      return edge(options);
    default:
      throw new OptionError('suite', `one of ${SUITES.map((suite) => `"${suite}"`).join(', ')}`, name);
  }
}

/** One point with the paper's load; suites and `sim` change what they vary. */
export function basePoint(suite: string, options: SuiteOptions = {}): Point {
  return {
    suite,
    variant: '',
    model: 'qwen3-30b-a3b',
    gpu: 'rtx5080',
    units: 4,
    unitBandwidthGBs: 102.4,
    batch: 1,
    promptTokens: options.promptTokens ?? 512,
    answerTokens: options.answerTokens ?? 512,
    correlation: 0.6,
    recall: DEFAULT_RECALL,
    policies: ['monde', 'monde-split', 'ours', 'oracle'],
    workloads: workloads(PROFILES, options.seed ?? 1),
  };
}

/** Each profile with a seed of its own. */
function workloads(profiles: readonly string[], seed: number): WorkloadName[] {
  return profiles.map((profile, index) => ({ profile, seed: seed + index }));
}

function paper(options: SuiteOptions): Point[] {
  const policies = [
    'on-demand',
    'pre-gated',
    'fiddler',
    'duplex',
    'monde',
    'monde-split',
    'ours',
    'oracle',
  ] as const;
  return PAPER_MODELS.flatMap((model) =>
    PAPER_UNITS.flatMap((units) =>
      UNIT_BANDWIDTHS.map((unitBandwidthGBs) => ({
        ...basePoint('paper', options),
        model,
        units,
        unitBandwidthGBs,
        policies,
      })),
    ),
  );
}

function ablation(options: SuiteOptions): Point[] {
  const policies = [
    'monde',
    'monde-split',
    'monde-cached',
    'tp',
    'tp-balanced',
    'tp-prefill',
    'ours',
    'oracle',
  ] as const;
  return PAPER_MODELS.flatMap((model) =>
    [2, 4, 6].flatMap((units) =>
      [25.6, 102.4].map((unitBandwidthGBs) => ({
        ...basePoint('ablation', options),
        model,
        units,
        unitBandwidthGBs,
        policies,
        workloads: workloads(PROFILES.slice(0, 3), options.seed ?? 1),
      })),
    ),
  );
}

function sweep(options: SuiteOptions): Point[] {
  const base = {
    ...basePoint('sweep', options),
    workloads: workloads(PROFILES.slice(0, 3), options.seed ?? 1),
  };
  const vary = (variant: string, change: Partial<Point>): Point => ({ ...base, variant, ...change });
  const slow = { units: 2, unitBandwidthGBs: 25.6 };
  const batchBase = {
    promptTokens: Math.min(base.promptTokens, 256),
    answerTokens: Math.min(base.answerTokens, 128),
  };
  return [
    ...UNIT_BANDWIDTHS.map((value) => vary(`unit bandwidth ${value} GB/s`, { unitBandwidthGBs: value })),
    vary('link PCIe 4.0', { hostToDeviceGBs: 25.5 }),
    vary('link PCIe 5.0', { hostToDeviceGBs: 56 }),
    ...[0, 0.3, 0.6, 0.9].map((value) => vary(`correlation ${value}`, { correlation: value })),
    ...[0.5, 0.67, 0.8, 0.95].map((value) =>
      vary(`recall ${value}`, { recall: value, unitBandwidthGBs: 51.2 }),
    ),
    // Where units are slow a copy may hold up an expert that is needed now: there the width matters.
    ...[0, 1, 2, 4, 8, 16].map((value) => vary(`prefetch width ${value}`, { prefetchWidth: value, ...slow })),
    vary('prefetch width online', slow),
    ...[8, 12, 16, 24, 32].map((value) => vary(`vram ${value} GB`, { memoryGB: value })),
    ...[1, 2, 4, 8, 16, 32].map((value) =>
      vary(`batch ${value}`, {
        batch: value,
        ...batchBase,
        policies: value === 1 ? base.policies : base.policies.filter((policy) => policy !== 'oracle'),
        workloads: base.workloads.slice(0, 1),
      }),
    ),
  ];
}

function edge(options: SuiteOptions): Point[] {
  return ['orin', 'thor', 'rtx3060', 'rtx4090', 'rtx5090'].flatMap((gpu) =>
    PAPER_MODELS.map((model) => ({
      ...basePoint('edge', options),
      gpu,
      model,
      workloads: workloads(PROFILES.slice(0, 3), options.seed ?? 1),
    })),
  );
}
