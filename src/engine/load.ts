/**
 * From options to a model that can compute: opens the checkpoint, settles options and memory, loads weights, measures
 * costs, puts the engine together. Called by worker.ts; synchronous, with progress, stopped through the engine's
 * cancel flag. Whatever fails on the way frees what was taken.
 */
import { binding, type NativeDeviceOptions } from '../binding.js';
import { graphWarnings, resolveGpu } from '../device/gpu.js';
import { createNativeDevice, type LoadableDevice } from '../device/native.js';
import { GpuError } from '../errors.js';
import { Constraints } from '../grammar/constraint.js';
import { type OpenedModel, openModel } from '../model/open-model.js';
import { opensReasoning, reasoningStyle } from '../model/reasoning-style.js';
import { Rope } from '../model/rope.js';
import { toolCallStyle } from '../model/tool-call-style.js';
import {
  type ChatMessage,
  type ChatTemplateOptions,
  type EngineOptions,
  LOAD_DEFAULTS,
  type LoadProgress,
} from '../options.js';
import { type PlacedBytes, placedBytes, slotCount } from '../placement/placement.js';
import type { Planner } from '../schedule/planner.js';
import { maxLogitRows } from './batcher.js';
import { calibrate } from './calibrate.js';
import { Engine, type EngineEvents } from './engine.js';
import { Forward } from './forward.js';
import { loadWeights } from './load-weights.js';
import { availableBytes, checkMemory } from './memory.js';
import { ENGINE_SLOT } from './messages.js';
import { type ModelFacts, modelFacts } from './model-facts.js';
import { planReport } from './plan-report.js';
import { createPlanner, moeShape } from './planning.js';
import { gpuRecovery } from './recovery.js';
import { RepackCache } from './repack-cache.js';
import type { PlanReport } from './result.js';
import { resolveSettings, type Settings, withoutGpu } from './settings.js';
import type { EngineStats } from './stats.js';
import { Telemetry } from './telemetry.js';
import { estimatedParts, type WeightFacts, weightFacts } from './weight-facts.js';

export type LoadedModel = {
  engine: Engine;
  report(): PlanReport;
  facts(): ModelFacts;
  stats(timeline: boolean): EngineStats;
  /** Throws TokenizerError. */
  encode(text: string): Int32Array;
  /** Throws ChatTemplateError, TokenizerError. */
  /** `inReasoning`: the prompt opens the reasoning of the answer. */
  encodeChat(
    messages: readonly ChatMessage[],
    template: ChatTemplateOptions,
  ): { ids: Int32Array; inReasoning: boolean };
  /** Frees everything. Idempotent. */
  dispose(): void;
};

export type LoadEvents = EngineEvents & { progress(progress: LoadProgress): void };

/** Throws OptionError, ModelFormatError, TokenizerError, MemoryError, AddonLoadError, DeviceError, GpuError, AbortedError. */
export function loadModel(options: EngineOptions, cancelFlags: Int32Array, events: LoadEvents): LoadedModel {
  events.progress({ phase: 'open', doneBytes: 0, totalBytes: 0 });
  const opened = openModel(options.model, options.quantize);
  const facts = weightFacts(opened);
  const gpu = resolveGpu(options.gpu ?? LOAD_DEFAULTS.gpu);
  const model = { spec: opened.spec, ...facts };
  const settings = resolveSettings({ ...options, gpu }, model, binding().cpuInfo());
  checkMemory(estimatedParts(opened.spec, settings, facts), availableBytes(), options.model);
  const device = createNativeDevice(opened.spec, nativeOptions(settings, facts), cancelFlags);
  const loading = new Loading(device, opened, settings, facts, cancelFlags, events);
  try {
    return loading.run(options);
  } catch (error) {
    device.dispose();
    throw error;
  }
}

/** One device being filled and what is known about it; also fills it anew without a GPU that failed. */
class Loading {
  #planner: Planner | undefined;
  #memory: PlacedBytes[] = [];
  #warnings: string[] = [];
  #isCancelled = () => Atomics.load(this.cancelFlags, ENGINE_SLOT) !== 0;
  #totalBytes = 0;

  constructor(
    private readonly device: LoadableDevice,
    private readonly opened: OpenedModel,
    private settings: Settings,
    private readonly facts: WeightFacts,
    private readonly cancelFlags: Int32Array,
    private readonly events: LoadEvents,
  ) {}

  /** With gpu 'auto', a GPU that cannot take this model is left aside. */
  run({ gpu: asked = LOAD_DEFAULTS.gpu, repackCache }: EngineOptions): LoadedModel {
    const { device, opened, cancelFlags, events } = this;
    try {
      this.#fillThroughCache(repackCache);
      this.#calibrate();
    } catch (error) {
      if (!(error instanceof GpuError) || asked !== 'auto') throw error;
      this.#restartWithoutGpu(error);
    }
    const { layers, numExperts } = moeShape(opened.spec);
    const { units, gpu } = device.info;
    const telemetry = new Telemetry(layers, numExperts, units, gpu !== 'off', device.nowUs());
    const engine = createEngine(device, opened, this.settings, this.#planner, cancelFlags, events, {
      telemetry,
      restart: isGpu(gpu) ? (failure) => this.#restartWithoutGpu(failure) : undefined,
    });
    this.#tell('ready');
    const { tokenizer, chatTemplate } = opened;
    return {
      engine,
      stats: (timeline) => ({
        ...telemetry.snapshot(device.nowUs(), timeline),
        ...engine.state,
        residents: this.#planner?.cache.residents() ?? [],
      }),
      report: () => this.#report(),
      facts: () => modelFacts(opened),
      encode: (text) => Int32Array.from(tokenizer.encode(text)),
      encodeChat: (messages, { tools, variables }) => {
        const text = chatTemplate.render({ messages, tools, variables });
        return {
          // The template writes the special tokens itself.
          ids: Int32Array.from(tokenizer.encode(text, { addSpecialTokens: false })),
          inReasoning: opensReasoning(text, reasoningStyle(chatTemplate.texts)),
        };
      },
      dispose: () => device.dispose(),
    };
  }

  #report(): PlanReport {
    const { opened, settings, device } = this;
    const { texts } = opened.chatTemplate;
    const styles = { toolCalls: toolCallStyle(texts), reasoning: reasoningStyle(texts) };
    const warnings = [...this.#warnings, ...graphWarnings(device)];
    return planReport(opened.spec, settings, device.info, this.#memory, this.#planner, styles, warnings);
  }

  #fillThroughCache(folder: string | undefined): void {
    const { device, opened, settings, facts } = this;
    const tell = (warning?: string) => this.#tell('cache', warning);
    const isKept = folder !== undefined && !isGpu(settings.gpu);
    if (folder !== undefined && !isKept)
      tell('with a GPU the packed weights are not kept: its part of them leaves our memory');
    const cache = isKept ? new RepackCache(folder, opened, settings, facts) : undefined;
    const isMapped = cache?.restore(device.arenas(), tell) ?? false;
    this.#fill();
    if (isMapped) return;
    if (cache) tell();
    cache?.write(device.arenas(), this.#isCancelled, tell);
  }

  #fill(): void {
    const { device, opened, settings, facts } = this;
    const progress = (doneBytes: number, totalBytes: number) => {
      this.#totalBytes = totalBytes;
      this.events.progress({ phase: 'weights', doneBytes, totalBytes });
    };
    const { memory, missingSlots } = fillDevice(device, opened, settings, facts, progress, this.#isCancelled);
    this.#memory = memory;
    const { expertSlots } = device.info;
    if (missingSlots > 0)
      this.#warn(
        `The GPU's memory holds ${expertSlots} experts, not the ${expertSlots + missingSlots} asked for.`,
      );
  }

  #calibrate(): void {
    const { device, opened, settings } = this;
    if (settings.gpu === 'off') return;
    this.#tell('calibrate');
    const profile = calibrate(device, device.info, settings.maxBatchTokens);
    this.#planner = createPlanner(device.info, opened.spec, settings, profile);
  }

  #restartWithoutGpu(failure: GpuError): void {
    this.#warn(`Going on without a GPU, on the NDP units alone: ${failure.message}`);
    this.settings = withoutGpu(this.settings);
    this.#planner = undefined;
    this.device.restart(nativeOptions(this.settings, this.facts));
    this.#fill();
  }

  #warn(text: string): void {
    this.#warnings.push(text);
    this.#tell('weights', text);
  }

  #tell(phase: LoadProgress['phase'], warning?: string): void {
    this.events.progress({ phase, doneBytes: this.#totalBytes, totalBytes: this.#totalBytes, warning });
  }
}

function isGpu(gpu: PlanReport['gpu']): boolean {
  return gpu === 'cuda' || gpu === 'emulated';
}

/** Weights, KV cache and VRAM slots; tells where their bytes lie, and how many of the slots asked for there are not. */
export function fillDevice(
  device: LoadableDevice,
  opened: OpenedModel,
  settings: Settings,
  facts: WeightFacts,
  progress: (doneBytes: number, totalBytes: number) => void,
  isCancelled: () => boolean,
): { memory: PlacedBytes[]; missingSlots: number } {
  loadWeights(opened, device, progress, isCancelled);
  const held = device.finishLoad();
  const slots = slotCount(settings.vramBytes, held.expertSlabBytes, facts.experts);
  const cacheBytes = device.allocate(settings.kvBlocks, slots, settings.stateSlots);
  const { expertSlots } = device.info;
  const bytes = { ...held, ...cacheBytes, slotBytes: expertSlots * held.expertSlabBytes };
  const missingSlots = device.info.gpu === 'off' ? 0 : slots - expertSlots;
  return { memory: placedBytes(device.info, facts.expertsPerLayer, bytes), missingSlots };
}

/** `restart` where the device has a GPU that may fail (recovery.ts). */
type EngineExtras = { telemetry?: Telemetry; restart?: (failure: GpuError) => void };

export function createEngine(
  device: LoadableDevice,
  { spec, generation, tokenizer }: OpenedModel,
  settings: Settings,
  planner: Planner | undefined,
  cancelFlags: Int32Array,
  events: EngineEvents,
  { telemetry, restart }: EngineExtras = {},
): Engine {
  const ropes = spec.ropes.map((rope) => new Rope(rope));
  const constraints = new Constraints({
    vocabSize: spec.vocabSize,
    eosIds: generation.eosTokenIds,
    bytesOf: (id) => tokenizer.tokenBytes(id),
    specialTexts: tokenizer.specialTexts(),
    droppedSpaces: tokenizer.droppedSpaces,
  });
  const forward = new Forward(device, spec, ropes, planner);
  const dependsOnLength = ropes.some((rope) => rope.dependsOnLength);
  const { numExperts, topK } = moeShape(spec);
  const { maxContext, kvBlocks, stateSlots, maxBatchTokens, maxSequences } = settings;
  return new Engine(
    {
      device,
      forward,
      vocabSize: spec.vocabSize,
      numExperts,
      topK,
      maxContext,
      kvBlocks,
      stateSlots,
      limits: {
        maxBatchTokens,
        maxSequences,
        recomputeByToken: dependsOnLength,
        // Keys rotated for one length are not those of another.
        prefixCache: settings.prefixCache && !dependsOnLength,
      },
      eosIds: new Set(generation.eosTokenIds),
      sampling: generation.sampling,
      textStream: (options) => tokenizer.decodeStream(options),
      tokenBytes: (id) => tokenizer.tokenBytes(id),
      constrain: (format, continuation) => constraints.create(format, continuation),
      cancelFlags,
      telemetry,
      recover: restart && gpuRecovery(forward, restart),
    },
    events,
  );
}

export function nativeOptions(settings: Settings, facts: WeightFacts): NativeDeviceOptions {
  const { transferBandwidthGBs, units, threadsPerUnit, gpuThreads } = settings;
  return {
    units,
    threadsPerUnit,
    tpDegree: settings.tpDegree,
    gpu: settings.gpu,
    gpuThreads,
    pinThreads: settings.pinThreads,
    lookahead: settings.prefetch === 'lookahead',
    transferBandwidthGBs: Number.isFinite(transferBandwidthGBs) ? transferBandwidthGBs : 0,
    kvDtype: settings.kvDtype,
    maxStepTokens: settings.maxBatchTokens,
    maxLogitRows: maxLogitRows(settings),
    sliceCols: facts.sliceCols,
    arenaBytes: facts.arenaBytes(units * threadsPerUnit + gpuThreads),
    isa: settings.isa,
  };
}
