/**
 * Scheduling policies and prefetch predictors by name. The engine creates them here from its options; the simulator
 * adds its own with registerScheduler and registerPredictor. Names are what --policy and --prefetch take.
 */
import { OptionError } from '../errors.js';
import type { ExpertCache } from '../placement/expert-cache.js';
import { BalancedScheduler } from './balanced.js';
import { DuplexScheduler } from './baselines/duplex.js';
import { FiddlerScheduler } from './baselines/fiddler.js';
import { GpuOnDemandScheduler } from './baselines/gpu-on-demand.js';
import { MondeScheduler } from './baselines/monde.js';
import { NdpOnlyScheduler } from './baselines/ndp-only.js';
import { StaticSplitScheduler } from './baselines/static-split.js';
import { LookaheadPredictor } from './predictors/lookahead.js';
import type { PredictorEntry } from './predictors/predictor.js';
import { PrefillPredictor } from './predictors/prefill.js';
import { Prefetcher, type PrefetcherOptions } from './prefetcher.js';
import type { Costs, Scheduler, SchedulerEntry, SchedulerShape } from './scheduler.js';

/** Prefetch without a predictor. */
export const PREFETCH_OFF = 'off';

const schedulers = new Map<string, SchedulerEntry>();
const predictors = new Map<string, PredictorEntry>();

/** Adds a policy; a name that is taken is refused with OptionError. */
export function registerScheduler(entry: SchedulerEntry): void {
  if (schedulers.has(entry.name)) throw new OptionError('policy', 'a new name', entry.name);
  schedulers.set(entry.name, entry);
}

/** Adds a predictor; a name that is taken is refused with OptionError. */
export function registerPredictor(entry: PredictorEntry): void {
  if (entry.name === PREFETCH_OFF || predictors.has(entry.name)) {
    throw new OptionError('prefetch', 'a new name', entry.name);
  }
  predictors.set(entry.name, entry);
}

/** Every policy, in order of registration. */
export function schedulerEntries(): readonly SchedulerEntry[] {
  return [...schedulers.values()];
}

/** Every value of the prefetch option: 'off' and the predictors in order of registration. */
export function prefetchNames(): readonly string[] {
  return [PREFETCH_OFF, ...predictors.keys()];
}

/** Throws OptionError for an unknown name. */
export function createScheduler(name: string, shape: SchedulerShape): Scheduler {
  const entry = schedulers.get(name);
  if (entry === undefined) throw new OptionError('policy', oneOf([...schedulers.keys()]), name);
  return entry.create(shape);
}

/** A prefetcher over `cache`; throws OptionError for an unknown name. */
export function createPrefetcher(
  name: string,
  layers: number,
  cache: ExpertCache,
  costs: Costs,
  options?: PrefetcherOptions,
): Prefetcher {
  if (name === PREFETCH_OFF) return new Prefetcher(cache, costs, undefined, options);
  const entry = predictors.get(name);
  if (entry === undefined) throw new OptionError('prefetch', oneOf(prefetchNames()), name);
  return new Prefetcher(cache, costs, entry.create(layers, cache.numExperts), options);
}

function oneOf(names: readonly string[]): string {
  return `one of ${names.map((name) => `"${name}"`).join(', ')}`;
}

registerScheduler({
  name: 'balanced',
  description: 'least makespan over GPU, NDP groups and transfers',
  create: (shape) => new BalancedScheduler(shape),
});
registerScheduler({
  name: 'gpu-on-demand',
  description: 'every expert on the GPU, copied when routed',
  create: (shape) => new GpuOnDemandScheduler(shape),
});
registerScheduler({
  name: 'ndp-only',
  description: 'every expert near its memory',
  create: (shape) => new NdpOnlyScheduler(shape),
});
registerScheduler({
  name: 'static-split',
  description: 'the first experts of each layer on the GPU, the others near their memory',
  create: (shape) => new StaticSplitScheduler(shape),
});
registerScheduler({
  name: 'monde',
  description: 'the hottest experts on the GPU, as many as the ratio of bandwidths says',
  create: (shape) => new MondeScheduler(shape),
});
registerScheduler({
  name: 'duplex',
  description: 'experts with many tokens on the GPU, judged by compute times alone',
  create: (shape) => new DuplexScheduler(shape),
});
registerScheduler({
  name: 'fiddler',
  description: 'absent experts near memory or copied, without overlap of copies and compute',
  create: (shape) => new FiddlerScheduler(shape),
});

registerPredictor({
  name: 'prefill',
  description: 'what the prompt activated, kept up to date in decode',
  create: (layers, numExperts) => new PrefillPredictor(layers, numExperts),
});
registerPredictor({
  name: 'lookahead',
  description: 'as prefill, and before all else the guesses of a lookahead at the next layer',
  create: (layers, numExperts) => new LookaheadPredictor(layers, numExperts),
});
