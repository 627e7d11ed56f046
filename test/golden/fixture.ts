/**
 * A golden checkpoint, loaded into a device of this process, and engines over it: one load serves many policies,
 * chunk sizes and batches. The goldens come from Hugging Face transformers (scripts/goldens).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { binding } from '../../src/binding.js';
import { createNativeDevice, type LoadableDevice } from '../../src/device/native.js';
import { calibrate } from '../../src/engine/calibrate.js';
import { createEngine, fillDevice, nativeOptions } from '../../src/engine/load.js';
import { createPlanner, type PlanningNames } from '../../src/engine/planning.js';
import type { GenerateResult } from '../../src/engine/result.js';
import { resolveSettings, type Settings } from '../../src/engine/settings.js';
import { weightFacts } from '../../src/engine/weight-facts.js';
import { dtypeTraits } from '../../src/model/dtypes.js';
import { type OpenedModel, openModel } from '../../src/model/open-model.js';
import type { EngineOptions, RequestOptions } from '../../src/options.js';

export type GoldenPrompt = {
  name: string;
  text: string;
  inputIds: number[];
  greedyIds: number[];
  /** Rows of logits.f32: for the last prompt token and each greedy token but the last. */
  firstRow: number;
  rows: number;
};

export type Golden = { name: string; architecture: string; vocabSize: number; prompts: GoldenPrompt[] };

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), 'fixtures');

export const fixtureNames = readdirSync(root)
  .filter((name) => existsSync(path.join(root, name, 'golden.json')))
  .sort();

export const fixturePath = (name: string) => path.join(root, name);

/** The model with its quantised weights as bfloat16 in memory, which holds the values of MXFP4 exactly. */
function inFloats(model: OpenedModel): OpenedModel {
  const weights = model.weights.map((weight) => {
    const dtype = model.tensors.get(weight.tensor)?.dtype ?? 'f32';
    return dtypeTraits(dtype).blockCols > 1 ? { ...weight, quantised: 'bf16' as const } : weight;
  });
  return { ...model, weights };
}

export class Fixture {
  readonly golden: Golden;
  readonly logits: Float32Array;
  readonly settings: Settings;
  readonly opened: OpenedModel;
  readonly device: LoadableDevice;
  readonly cancelFlags = new Int32Array(new SharedArrayBuffer(1024));

  /**
   * Without `asStored` quantised weights are held as floats: transformers computes with those, and so exactly. `model`:
   * the same checkpoint elsewhere.
   */
  constructor(
    name: string,
    options: Omit<EngineOptions, 'model'> = {},
    asStored = false,
    model = fixturePath(name),
  ) {
    const folder = fixturePath(name);
    this.golden = JSON.parse(readFileSync(path.join(folder, 'golden.json'), 'utf8')) as Golden;
    const bytes = readFileSync(path.join(folder, 'logits.f32'));
    this.logits = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    this.opened = asStored ? openModel(model) : inFloats(openModel(model));
    const facts = weightFacts(this.opened);
    const described = { spec: this.opened.spec, ...facts };
    // Pinning would tie the threads of several test processes to the same few cores.
    this.settings = resolveSettings(
      { pinThreads: false, kvTokens: 1024, ...options, model },
      described,
      binding().cpuInfo(),
    );
    const native = nativeOptions(this.settings, facts);
    this.device = createNativeDevice(this.opened.spec, native, this.cancelFlags);
    fillDevice(
      this.device,
      this.opened,
      this.settings,
      facts,
      () => undefined,
      () => false,
    );
  }

  dispose(): void {
    this.device.dispose();
  }

  /** Greedy continuations of all prompts, together in one batch or one after the other. */
  run(options: {
    names?: PlanningNames;
    maxBatchTokens?: number;
    together?: boolean;
    request?: RequestOptions;
  }): GenerateResult[] {
    const { names, maxBatchTokens = this.settings.maxBatchTokens, together = true } = options;
    const { device, opened } = this;
    const planner =
      names && createPlanner(device.info, opened.spec, names, calibrate(device, device.info, maxBatchTokens));
    const results = new Map<number, GenerateResult>();
    const settings = { ...this.settings, maxBatchTokens };
    const engine = createEngine(device, opened, settings, planner, this.cancelFlags, {
      step: (parts) => {
        for (const part of parts) engine.acknowledge(part.id, part.text === '' ? 0 : 1);
      },
      finished: (id, result) => results.set(id, result),
      failed: (_, error) => {
        throw error;
      },
    });
    this.golden.prompts.forEach((prompt, id) => {
      engine.add(id, 0, Int32Array.from(prompt.inputIds), {
        maxTokens: prompt.greedyIds.length,
        temperature: 0,
        ignoreEos: true,
        captureLogits: true,
        ...options.request,
      });
      while (!together && engine.step());
    });
    while (engine.step());
    return this.golden.prompts.map((_, id) => {
      const result = results.get(id);
      if (result === undefined) throw new Error(`prompt ${id} gave no result`);
      return result;
    });
  }

  /** Largest error over all rows of a prompt, as a share of the largest golden logit. */
  logitError(prompt: GoldenPrompt, result: GenerateResult, rows = prompt.rows): number {
    const { vocabSize } = this.golden;
    const golden = this.logits.subarray(prompt.firstRow * vocabSize, (prompt.firstRow + rows) * vocabSize);
    const values = (result.logits?.values ?? new Float32Array(0)).subarray(0, rows * vocabSize);
    if (values.length !== golden.length)
      throw new Error(`${values.length} logits, golden has ${golden.length}`);
    let largest = 0;
    let error = 0;
    golden.forEach((expected, index) => {
      largest = Math.max(largest, Math.abs(expected));
      error = Math.max(error, Math.abs(expected - (values[index] ?? Number.NaN)));
    });
    return error / largest;
  }
}
