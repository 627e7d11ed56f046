/** An Engine over the FakeDevice, with what it reported: for the tests of this folder. */
import { Engine, type EngineParts } from '../../../src/engine/engine.js';
import { Forward } from '../../../src/engine/forward.js';
import type { StepPart } from '../../../src/engine/messages.js';
import { createPlanner } from '../../../src/engine/planning.js';
import { gpuRecovery } from '../../../src/engine/recovery.js';
import type { GenerateResult } from '../../../src/engine/result.js';
import type { GpuError } from '../../../src/errors.js';
import type { ModelSpec } from '../../../src/model/model-spec.js';
import type { RequestOptions } from '../../../src/options.js';
import { profileFromRates } from '../../../src/schedule/cost-profile.js';
import { FakeDevice, type FakeDeviceOptions, TOY } from './fake-device.js';

export type HarnessOptions = FakeDeviceOptions & {
  maxBatchTokens?: number;
  maxSequences?: number;
  maxContext?: number;
  prefixCache?: boolean;
  policy?: string;
  prefetch?: string;
  cachePolicy?: string;
  engine?: Partial<EngineParts>;
  /** As load.ts gives it where the device has a GPU. */
  restart?: (failure: GpuError) => void;
};

/** Token 0..95 as one visible character each. */
export const toyText = (ids: readonly number[]) => ids.map((id) => String.fromCharCode(32 + id)).join('');

function toySpec(denseLayers: readonly number[]): ModelSpec {
  const moe = { kind: 'moe', numExperts: TOY.numExperts, numExpertsPerTok: TOY.topK };
  const layers = Array.from({ length: TOY.layers }, (_, layer) => ({
    ffn: denseLayers.includes(layer) ? { kind: 'dense' } : moe,
  }));
  return { vocabSize: TOY.vocabSize, layers } as unknown as ModelSpec;
}

const RATES = {
  expertBytes: 1000,
  flopsPerToken: 1000,
  gpuBandwidthGBs: 4,
  gpuGflops: 8,
  unitBandwidthGBs: 1,
  unitGflops: 2,
  tpDegree: 2,
  transferBandwidthGBs: 2,
};

export class Harness {
  readonly device: FakeDevice;
  readonly engine: Engine;
  readonly cancelFlags = new Int32Array(new SharedArrayBuffer(64));
  readonly results = new Map<number, GenerateResult>();
  readonly errors = new Map<number, unknown>();
  /** Texts of each request in the order of their steps. */
  readonly parts = new Map<number, string[]>();
  readonly stepParts: StepPart[] = [];

  constructor(options: HarnessOptions = {}) {
    const blocks = options.blocks ?? 64;
    this.device = new FakeDevice({ ...options, blocks, cancelFlags: this.cancelFlags });
    const spec = toySpec(options.denseLayers ?? []);
    const { info } = this.device;
    const { policy = 'gpu-on-demand', prefetch = 'off', cachePolicy = 'score' } = options;
    const names = { policy, prefetch, cachePolicy };
    const planner =
      info.gpu === 'off' ? undefined : createPlanner(info, spec, names, profileFromRates(RATES));
    const forward = new Forward(this.device, spec, [], planner);
    const parts: EngineParts = {
      device: this.device,
      forward,
      recover: options.restart && gpuRecovery(forward, options.restart),
      vocabSize: TOY.vocabSize,
      numExperts: TOY.numExperts,
      topK: TOY.topK,
      maxContext: options.maxContext ?? 256,
      kvBlocks: blocks,
      stateSlots: options.stateSlots,
      limits: {
        maxBatchTokens: options.maxBatchTokens ?? 64,
        maxSequences: options.maxSequences ?? 8,
        recomputeByToken: false,
        prefixCache: options.prefixCache ?? true,
      },
      eosIds: new Set([TOY.eosId]),
      sampling: {},
      textStream: () => ({ push: (id) => (id === TOY.eosId ? '' : toyText([id])), flush: () => '' }),
      tokenBytes: (id) => new TextEncoder().encode(toyText([id])),
      constrain: () => undefined,
      cancelFlags: this.cancelFlags,
      ...options.engine,
    };
    this.engine = new Engine(parts, {
      step: (stepParts) => {
        for (const part of stepParts) {
          this.stepParts.push(part);
          if (part.text !== '') this.parts.set(part.id, [...(this.parts.get(part.id) ?? []), part.text]);
        }
      },
      finished: (id, result) => this.results.set(id, result),
      failed: (id, error) => this.errors.set(id, error),
    });
  }

  /** `id` is also the cancel slot. */
  add(id: number, prompt: readonly number[], options: RequestOptions = {}): void {
    this.engine.add(id, id, Int32Array.from(prompt), options);
  }

  /** Steps until nothing can be computed; a reader that keeps up acknowledges every part. */
  run({ acknowledge = true } = {}): void {
    for (let steps = 0; steps < 100_000; steps++) {
      if (!this.engine.step()) return;
      if (!acknowledge) continue;
      for (const [id, parts] of this.parts) this.engine.acknowledge(id, parts.splice(0).length);
    }
    throw new Error('the engine does not come to an end');
  }

  /** One request alone, to its end. */
  generate(prompt: readonly number[], options: RequestOptions = {}): GenerateResult {
    this.add(1, prompt, options);
    this.run();
    const result = this.results.get(1);
    if (result === undefined) throw this.errors.get(1) ?? new Error('no result');
    return result;
  }
}
