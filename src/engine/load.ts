/**
 * From options to a model that can compute: opens the checkpoint, settles options and memory, loads weights, measures
 * costs, puts the engine together. Called by worker.ts; synchronous, with progress, stopped through the engine's
 * cancel flag. Whatever fails on the way frees what was taken.
 */
import { binding, type NativeDeviceOptions } from '../binding.js';
import { createNativeDevice, type LoadableDevice } from '../device/native.js';
import { Constraints } from '../grammar/constraint.js';
import type { ModelSpec } from '../model/model-spec.js';
import { type OpenedModel, openModel } from '../model/open-model.js';
import { Rope } from '../model/rope.js';
import { toolCallStyle } from '../model/tool-call-style.js';
import type { ChatMessage, ChatTemplateOptions, EngineOptions, LoadProgress } from '../options.js';
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
import { RepackCache } from './repack-cache.js';
import type { PlanReport } from './result.js';
import { resolveSettings, type Settings } from './settings.js';
import type { EngineStats } from './stats.js';
import { Telemetry } from './telemetry.js';
import { kvBytes, type WeightFacts, weightFacts } from './weight-facts.js';

export type LoadedModel = {
  engine: Engine;
  report(): PlanReport;
  facts(): ModelFacts;
  stats(timeline: boolean): EngineStats;
  /** Throws TokenizerError. */
  encode(text: string): Int32Array;
  /** Throws ChatTemplateError, TokenizerError. */
  encodeChat(messages: readonly ChatMessage[], template: ChatTemplateOptions): Int32Array;
  /** Frees everything. Idempotent. */
  dispose(): void;
};

export type LoadEvents = EngineEvents & { progress(progress: LoadProgress): void };

/** Throws OptionError, ModelFormatError, TokenizerError, MemoryError, AddonLoadError, DeviceError, AbortedError. */
export function loadModel(options: EngineOptions, cancelFlags: Int32Array, events: LoadEvents): LoadedModel {
  events.progress({ phase: 'open', doneBytes: 0, totalBytes: 0 });
  const opened = openModel(options.model, options.quantize);
  const facts = weightFacts(opened);
  const settings = resolveSettings(options, { spec: opened.spec, ...facts }, binding().cpuInfo());
  checkMemory(estimate(opened.spec, settings, facts), availableBytes(), options.model);
  const device = createNativeDevice(opened.spec, nativeOptions(settings, facts), cancelFlags);
  try {
    return loadInto(device, opened, settings, facts, cancelFlags, events, options.repackCache);
  } catch (error) {
    device.dispose();
    throw error;
  }
}

function loadInto(
  device: LoadableDevice,
  opened: OpenedModel,
  settings: Settings,
  facts: WeightFacts,
  cancelFlags: Int32Array,
  events: LoadEvents,
  repackCache: string | undefined,
): LoadedModel {
  let totalBytes = 0;
  const progress = (doneBytes: number, ofBytes: number) => {
    totalBytes = ofBytes;
    events.progress({ phase: 'weights', doneBytes, totalBytes });
  };
  const isCancelled = () => Atomics.load(cancelFlags, ENGINE_SLOT) !== 0;
  const cache = repackCache === undefined ? undefined : new RepackCache(repackCache, opened, settings, facts);
  const warn = (warning: string) =>
    events.progress({ phase: 'cache', doneBytes: totalBytes, totalBytes, warning });
  const isMapped = cache?.restore(device.arenas(), warn) ?? false;
  const memory = fillDevice(device, opened, settings, facts, progress, isCancelled);
  if (!isMapped) {
    if (cache) events.progress({ phase: 'cache', doneBytes: totalBytes, totalBytes });
    cache?.write(device.arenas(), isCancelled, warn);
  }
  let planner: Planner | undefined;
  if (settings.gpu !== 'off') {
    events.progress({ phase: 'calibrate', doneBytes: totalBytes, totalBytes });
    const profile = calibrate(device, device.info, settings.maxBatchTokens);
    planner = createPlanner(device.info, opened.spec, settings, profile);
  }
  const { layers, numExperts } = moeShape(opened.spec);
  const { units, gpu } = device.info;
  const telemetry = new Telemetry(layers, numExperts, units, gpu !== 'off', device.nowUs());
  const engine = createEngine(device, opened, settings, planner, cancelFlags, events, telemetry);
  events.progress({ phase: 'ready', doneBytes: totalBytes, totalBytes });
  const { tokenizer, chatTemplate } = opened;
  return {
    engine,
    stats: (timeline) => ({
      ...telemetry.snapshot(device.nowUs(), timeline),
      ...engine.state,
      residents: planner?.cache.residents() ?? [],
    }),
    report: () =>
      planReport(opened.spec, settings, device.info, memory, planner, toolCallStyle(chatTemplate.texts)),
    facts: () => modelFacts(opened),
    encode: (text) => Int32Array.from(tokenizer.encode(text)),
    encodeChat: (messages, { tools, variables }) => {
      const text = chatTemplate.render({ messages, tools, variables });
      // The template writes the special tokens itself.
      return Int32Array.from(tokenizer.encode(text, { addSpecialTokens: false }));
    },
    dispose: () => device.dispose(),
  };
}

/** Weights, KV cache and VRAM slots; tells where their bytes lie. */
export function fillDevice(
  device: LoadableDevice,
  opened: OpenedModel,
  settings: Settings,
  facts: WeightFacts,
  progress: (doneBytes: number, totalBytes: number) => void,
  isCancelled: () => boolean,
): PlacedBytes[] {
  loadWeights(opened, device, progress, isCancelled);
  const held = device.finishLoad();
  const slots = slotCount(settings.vramBytes, held.expertSlabBytes, facts.experts);
  const kv = device.allocate(settings.kvBlocks, slots);
  const bytes = { ...held, kvBytes: kv, slotBytes: slots * held.expertSlabBytes };
  return placedBytes(device.info, facts.expertsPerLayer, bytes);
}

export function createEngine(
  device: LoadableDevice,
  { spec, generation, tokenizer }: OpenedModel,
  settings: Settings,
  planner: Planner | undefined,
  cancelFlags: Int32Array,
  events: EngineEvents,
  telemetry?: Telemetry,
): Engine {
  const ropes = spec.ropes.map((rope) => new Rope(rope));
  const constraints = new Constraints({
    vocabSize: spec.vocabSize,
    eosIds: generation.eosTokenIds,
    bytesOf: (id) => (tokenizer.isSpecial(id) ? new Uint8Array(0) : tokenizer.tokenBytes(id)),
    droppedSpaces: tokenizer.droppedSpaces,
  });
  const dependsOnLength = ropes.some((rope) => rope.dependsOnLength);
  const { numExperts, topK } = moeShape(spec);
  const { maxContext, kvBlocks, maxBatchTokens, maxSequences } = settings;
  return new Engine(
    {
      device,
      forward: new Forward(device, spec, ropes, planner),
      vocabSize: spec.vocabSize,
      numExperts,
      topK,
      maxContext,
      kvBlocks,
      limits: {
        maxBatchTokens,
        maxSequences,
        recomputeByToken: dependsOnLength,
        // Keys rotated for one length are not those of another.
        prefixCache: settings.prefixCache && !dependsOnLength,
      },
      eosIds: new Set(generation.eosTokenIds),
      sampling: generation.sampling,
      textStream: (continuation) => tokenizer.decodeStream({ continuation }),
      tokenBytes: (id) => tokenizer.tokenBytes(id),
      constrain: (format, continuation) => constraints.create(format, continuation),
      cancelFlags,
      telemetry,
    },
    events,
  );
}

function estimate(spec: ModelSpec, settings: Settings, facts: WeightFacts) {
  const { units, tpDegree, gpu } = settings;
  const slots = slotCount(settings.vramBytes, facts.slabBytes, facts.experts);
  const bytes = { ...facts, kvBytes: kvBytes(spec, settings), slotBytes: slots * facts.slabBytes };
  return placedBytes(
    { units, tpDegree, gpu, ndpGroups: Math.ceil(units / tpDegree) },
    facts.expertsPerLayer,
    bytes,
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
