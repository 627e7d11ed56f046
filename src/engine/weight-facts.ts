/**
 * Sizes of a checkpoint's weights as the device will hold them, computed before any is read: for the memory check,
 * the reservation of arenas and the number of VRAM slots. Called by load.ts. Pure arithmetic on the tensor index.
 */
import { binding } from '../binding.js';
import { dtypeNumber, dtypeTraits } from '../model/dtypes.js';
import { kvValuesPerToken, stateValuesPerSequence } from '../model/kv-shape.js';
import type { ModelSpec, WeightRole } from '../model/model-spec.js';
import type { OpenedModel } from '../model/open-model.js';
import { heldDtype } from '../model/quantize-weights.js';
import { placedBytes, slotCount } from '../placement/placement.js';
import { KV_BLOCK_TOKENS } from './kv-blocks.js';
import { moeShape } from './planning.js';
import type { Settings } from './settings.js';

export type WeightFacts = {
  denseBytes: number;
  expertBytes: number;
  /** Largest expert's three matrices. */
  slabBytes: number;
  /** Experts of all layers, and the most of one layer. */
  experts: number;
  expertsPerLayer: number;
  /** No weight is held quantised. */
  isFloat: boolean;
  /** Columns at whose multiples every matrix may be cut. */
  sliceCols: number;
  /** Address space that is enough for an arena, whatever it holds, with weights cut over `ranks`. */
  arenaBytes(ranks: number): number;
};

/** Rows are packed in groups of this many: kRowGroup of kernels/ops.h. */
const ROW_GROUP = 16;
const KV_VALUE_BYTES = { f32: 4, f16: 2, bf16: 2, q8_0: 34 / 32 } as const;
const EXPERT_ROLES: ReadonlySet<WeightRole> = new Set(['expertGate', 'expertUp', 'expertDown']);

export function weightFacts({ spec, weights, tensors }: OpenedModel): WeightFacts {
  const dtypes = binding().dtypes();
  const { layers, numExperts } = moeShape(spec);
  let denseBytes = 0;
  let expertBytes = 0;
  let groupBytes = 0;
  let isFloat = true;
  let sliceCols = 1;
  const slabs = new Map<string, number>();
  for (const weight of weights) {
    const dtype = heldDtype(weight, tensors);
    const { blockCols, blockBytes } = dtypeTraits(dtype);
    const rowBytes = Math.ceil(weight.cols / blockCols) * blockBytes;
    const packed = Math.ceil(weight.rows / ROW_GROUP) * ROW_GROUP * rowBytes;
    groupBytes += ROW_GROUP * rowBytes;
    isFloat &&= blockCols === 1;
    sliceCols = Math.max(sliceCols, dtypes[dtypeNumber(dtype)]?.sliceCols ?? 1);
    if (EXPERT_ROLES.has(weight.role)) {
      const key = `${weight.layer}.${weight.expert}`;
      slabs.set(key, (slabs.get(key) ?? 0) + packed);
      expertBytes += packed;
    } else denseBytes += packed;
  }
  return {
    denseBytes,
    expertBytes,
    slabBytes: Math.max(0, ...slabs.values()),
    experts: layers.length * numExperts,
    expertsPerLayer: numExperts,
    isFloat,
    sliceCols,
    // Each rank's part of a matrix may end in a group of rows of its own and starts on a cache line.
    arenaBytes: (ranks) => denseBytes + expertBytes + ranks * (groupBytes + 64 * weights.length) + 2 ** 26,
  };
}

/** Bytes of the KV cache of all layers. */
export function kvBytes(spec: ModelSpec, settings: Pick<Settings, 'kvDtype' | 'kvBlocks'>): number {
  const perPosition = spec.layers.reduce(
    (sum, { attention }) => sum + kvValuesPerToken(attention) * KV_VALUE_BYTES[settings.kvDtype],
    0,
  );
  return perPosition * settings.kvBlocks * KV_BLOCK_TOKENS;
}

/** Bytes of one slot of states over all layers. */
export function stateSlotBytes({ layers }: ModelSpec): number {
  return layers.reduce((sum, layer) => sum + 4 * stateValuesPerSequence(layer), 0);
}

/** What a model will take of this machine's memory, by place. */
export function estimatedParts(spec: ModelSpec, settings: Settings, facts: WeightFacts) {
  const { units, tpDegree, gpu } = settings;
  // A GPU has memory of its own; what the weights take there passes through ours while they are loaded.
  const onHost = gpu !== 'cuda';
  const slots = onHost ? slotCount(settings.vramBytes, facts.slabBytes, facts.experts) : 0;
  const kv = onHost ? kvBytes(spec, settings) : 0;
  const stateBytes = onHost ? settings.stateSlots * stateSlotBytes(spec) : 0;
  const bytes = { ...facts, kvBytes: kv, stateBytes, slotBytes: slots * facts.slabBytes };
  return placedBytes(
    { units, tpDegree, gpu, ndpGroups: Math.ceil(units / tpDegree) },
    facts.expertsPerLayer,
    bytes,
  );
}
