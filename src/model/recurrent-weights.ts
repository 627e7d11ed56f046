/**
 * The weights of layers with a state in attention's place: which a layer needs, and where tensors keep them that hold
 * several matrices. Called by weights.ts.
 */
import type {
  LayerSpec,
  ModelSpec,
  WeightNeed,
  WeightRole,
  WeightShape,
  WeightSource,
} from './model-spec.js';
import type { RecurrentSpec } from './recurrent-spec.js';
import type { TensorIndex, TensorInfo } from './tensor-index.js';

/** What a layer has between its norms. */
export function recurrentShapes(recurrent: RecurrentSpec, hidden: number): WeightShape[] {
  if (recurrent.kind === 'short-conv') {
    const { channels, convWidth } = recurrent;
    return [
      ['convGate', channels, hidden],
      ['outputGate', channels, hidden],
      ['convInput', channels, hidden],
      ['convKernel', channels, convWidth],
      ['output', hidden, channels],
    ];
  }
  const { numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim, convWidth } = recurrent;
  const [keys, values] = [numKeyHeads * keyHeadDim, numValueHeads * valueHeadDim];
  return [
    ['query', keys, hidden],
    ['key', keys, hidden],
    ['value', values, hidden],
    ['outputGate', values, hidden],
    ['deltaBeta', numValueHeads, hidden],
    ['deltaDecay', numValueHeads, hidden],
    ['convKernel', 2 * keys + values, convWidth],
    ['deltaDecayRate', 1, numValueHeads],
    ['deltaDecayBias', 1, numValueHeads],
    ['deltaNorm', 1, valueHeadDim],
    ['output', hidden, values],
  ];
}

/** Convolution kernels come as [channels, width] or with a dimension of 1 between. */
export function convKernelView(weight: WeightNeed, tensor: TensorInfo, tensors: TensorIndex): WeightSource {
  const { role, layer, expert, rows, cols } = weight;
  tensors.expectShape(tensor, tensor.shape.length === 3 ? [rows, 1, cols] : [rows, cols]);
  return { role, layer, expert, tensor: tensor.name, firstRow: 0, rows, cols };
}

/** The rows of one of the roles that a tensor holds; `shapes` are those of the layer. */
export function heldRowsView(
  weight: WeightNeed,
  name: { holds: readonly WeightRole[]; byHead?: boolean },
  tensor: TensorInfo,
  spec: ModelSpec,
  shapes: readonly WeightShape[],
  tensors: TensorIndex,
): WeightSource {
  const { role, layer, expert, rows, cols } = weight;
  const rowsOf = (wanted: WeightRole) => shapes.find(([known]) => known === wanted)?.[1] ?? 0;
  const counts = name.holds.map(rowsOf);
  const sum = (values: number[]) => values.reduce((left, right) => left + right, 0);
  tensors.expectShape(tensor, [sum(counts), cols]);
  const heads = name.byHead ? headsOf(spec.layers[layer]) : 1;
  const firstRow = sum(counts.slice(0, name.holds.indexOf(role))) / heads;
  const source = { role, layer, expert, tensor: tensor.name, firstRow, rows, cols };
  return heads === 1 ? source : { ...source, rowBlock: rows / heads, rowStride: sum(counts) / heads };
}

/** Heads that a projection's rows are grouped by. */
export function headsOf(layer: LayerSpec | undefined): number {
  const { recurrent, attention } = layer ?? {};
  return recurrent?.kind === 'gated-delta' ? recurrent.numKeyHeads : (attention?.numHeads ?? 1);
}
