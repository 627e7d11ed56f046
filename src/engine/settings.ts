/**
 * Options made definite for one model on one machine: defaults that depend on either, and combinations that cannot
 * be. Called by load.ts before memory is taken; decides nothing about single steps.
 */
import type { NativeCpuInfo, NativeDeviceOptions } from '../binding.js';
import { OptionError } from '../errors.js';
import type { ModelSpec } from '../model/model-spec.js';
import { sizeBytes } from '../options/size-bytes.js';
import { type EngineOptions, type KvDtype, LOAD_DEFAULTS } from '../options.js';
import { evictionEntries } from '../placement/eviction.js';
import { prefetchNames, schedulerEntries } from '../schedule/registry.js';
import { kvBlockCount } from './kv-blocks.js';

export type Settings = {
  units: number;
  threadsPerUnit: number;
  tpDegree: number;
  gpu: NativeDeviceOptions['gpu'];
  gpuThreads: number;
  vramBytes: number;
  /** Infinity: as fast as memory copies. */
  transferBandwidthGBs: number;
  policy: string;
  prefetch: string;
  cachePolicy: string;
  kvDtype: KvDtype;
  maxContext: number;
  kvBlocks: number;
  /** Slots for the states of sequences; 0 where no layer has a state. */
  stateSlots: number;
  maxBatchTokens: number;
  maxSequences: number;
  prefixCache: boolean;
  pinThreads: boolean;
  isa: string;
};

/** What of the checkpoint settings depend on. */
export type ModelFacts = { spec: ModelSpec; expertBytes: number; isFloat: boolean };

const DEFAULT_CONTEXT = 8192;
/** States of the prefix cache that are safe from running sequences. */
const KEPT_STATES = 4;
/** More than any box has, less than what would exhaust the system. */
const MAX_THREADS = 1024;

/** The same without a GPU, on the same units. */
export function withoutGpu(settings: Settings): Settings {
  return { ...settings, gpu: 'off', gpuThreads: 0, vramBytes: 0 };
}

/** Throws OptionError. Option `gpu` was settled before (device/gpu.ts): 'auto' found none. */
export function resolveSettings(options: EngineOptions, model: ModelFacts, cpu: NativeCpuInfo): Settings {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const { policy, prefetch, cachePolicy, maxBatchTokens, prefixCache, pinThreads, isa, ...rest } = {
    ...LOAD_DEFAULTS,
    ...(Object.fromEntries(given) as EngineOptions),
  };
  checkName('policy', policy, schedulerEntries());
  checkName('prefetch', prefetch, prefetchNames());
  checkName('cachePolicy', cachePolicy, evictionEntries());
  checkIsa(isa, cpu);
  const gpu = rest.gpu === 'auto' ? 'off' : rest.gpu;
  const gpuThreads = gpu === 'host' ? rest.gpuThreads : 0;
  const cores = Math.max(1, cpu.physicalCores - gpuThreads);
  const units = rest.units ?? (cpu.numaNodes > 1 ? cpu.numaNodes : cores);
  const tpDegree = rest.tpDegree ?? units;
  const threadsPerUnit = rest.threadsPerUnit ?? Math.max(1, Math.floor(cores / units));
  const threads = units * threadsPerUnit + gpuThreads;
  if (threads > MAX_THREADS) {
    throw new OptionError('units', `at most ${MAX_THREADS} threads in all (units x threadsPerUnit)`, threads);
  }
  if (tpDegree > units) throw new OptionError('tpDegree', `an integer from 1 to ${units} (units)`, tpDegree);
  const maxSequences = Math.min(rest.maxSequences, maxBatchTokens);
  return {
    units,
    threadsPerUnit,
    tpDegree,
    gpu,
    gpuThreads,
    vramBytes: gpu === 'off' ? 0 : (sizeBytes(rest.vram) ?? defaultVram(gpu, model)),
    transferBandwidthGBs: rest.transferBandwidthGBs ?? Infinity,
    policy,
    prefetch,
    cachePolicy,
    kvDtype: rest.kvDtype !== 'auto' ? rest.kvDtype : model.isFloat ? 'f32' : 'f16',
    ...contextOf(rest, longestContext(model.spec)),
    maxBatchTokens,
    maxSequences,
    stateSlots: stateSlotCount(model.spec, maxSequences, prefixCache),
    prefixCache,
    pinThreads,
    isa,
  };
}

/** For each running sequence a state to read and one to write, and some that the prefix cache may keep besides. */
function stateSlotCount({ layers }: ModelSpec, maxSequences: number, prefixCache: boolean): number {
  if (layers.every(({ recurrent }) => recurrent === undefined)) return 0;
  return 2 * maxSequences + (prefixCache ? KEPT_STATES : 0);
}

/** A GPU's memory is there for experts, as far as it reaches; where the host plays one, a quarter of them. */
function defaultVram(gpu: Settings['gpu'], { expertBytes }: ModelFacts): number {
  return gpu === 'cuda' ? expertBytes : Math.ceil(expertBytes / 4);
}

/** Dynamic scaling is meant to run beyond the length that the config names, up to its factor. */
function longestContext({ maxPositions, ropes }: ModelSpec): number {
  const reaches = ropes.map(({ scaling }) =>
    scaling.type === 'dynamic' ? Math.floor(scaling.originalMaxPositions * scaling.factor) : 0,
  );
  return Math.max(maxPositions, ...reaches);
}

function contextOf(options: EngineOptions, maxPositions: number) {
  const maxContext = options.maxContext ?? Math.min(maxPositions, DEFAULT_CONTEXT);
  if (maxContext > maxPositions) {
    throw new OptionError(
      'maxContext',
      `an integer from 1 to ${maxPositions} (the model's limit)`,
      maxContext,
    );
  }
  const kvTokens = options.kvTokens ?? Math.max(maxContext, DEFAULT_CONTEXT);
  return { maxContext, kvBlocks: kvBlockCount(kvTokens, maxContext) };
}

/** A forced instruction set, by option or environment, must be one that this machine runs. Throws OptionError. */
export function checkIsa(
  isa: string,
  cpu: Pick<NativeCpuInfo, 'runnableIsas'>,
  forced = process.env.NEARMOE_ISA ?? '',
): void {
  const [name, value] = isa === '' ? ['NEARMOE_ISA', forced] : ['isa', isa];
  if (value === '' || cpu.runnableIsas.includes(value)) return;
  const known = cpu.runnableIsas.map((each) => `"${each}"`).join(', ');
  throw new OptionError(name, `one of ${known} (what this machine runs)`, value);
}

/** Names are checked before anything is loaded, also where there is no GPU lane to use them. */
function checkName(option: string, name: string, known: readonly (string | { name: string })[]): void {
  const names = known.map((entry) => (typeof entry === 'string' ? entry : entry.name));
  if (names.includes(name)) return;
  throw new OptionError(option, `one of ${names.map((each) => `"${each}"`).join(', ')}`, name);
}
