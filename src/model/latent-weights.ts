/**
 * The weights of latent attention: which a layer needs and where checkpoints keep them. Called by weights.ts for layers
 * that have it.
 */
import { dtypeTraits } from './dtypes.js';
import type {
  LatentSpec,
  LayerSpec,
  ModelSpec,
  WeightNeed,
  WeightRole,
  WeightShape,
  WeightSource,
} from './model-spec.js';
import type { TensorIndex, TensorInfo } from './tensor-index.js';

/** What a layer has once, between its norms. */
export function latentShapes(latent: LatentSpec, numHeads: number, hidden: number): WeightShape[] {
  const { queryRank, keyValueRank, nopeHeadDim, ropeHeadDim, valueHeadDim } = latent;
  const queryRows = numHeads * (nopeHeadDim + ropeHeadDim);
  const query: WeightShape[] =
    queryRank === 0
      ? [['query', queryRows, hidden]]
      : [
          ['queryDown', queryRank, hidden],
          ['queryNorm', 1, queryRank],
          ['query', queryRows, queryRank],
        ];
  return [
    ...query,
    ['latentDown', keyValueRank + ropeHeadDim, hidden],
    ['keyNorm', 1, keyValueRank],
    ['output', hidden, numHeads * valueHeadDim],
  ];
}

/** The matrices of latent attention that each head has of its own. */
export function* headNeeds(
  { attention: { latent, numHeads } }: LayerSpec,
  layer: number,
): Generator<WeightNeed> {
  if (latent === undefined) return;
  const { keyValueRank, nopeHeadDim, valueHeadDim } = latent;
  for (let head = 0; head < numHeads; head++) {
    const of = (role: WeightRole, rows: number, cols: number) => ({
      role,
      layer,
      expert: -1,
      head,
      rows,
      cols,
    });
    yield of('keyUp', keyValueRank, nopeHeadDim);
    yield of('valueUp', valueHeadDim, keyValueRank);
  }
}

/**
 * A head's part of latent attention's up-projections: of the Hub's one matrix, where each head has the rows of its keys
 * (to be transposed, since queries go through them the other way) and then of its values; or of llama.cpp's two tensors
 * with a matrix per head, the keys' transposed already.
 */
export function headView(
  weight: WeightNeed,
  tensor: TensorInfo,
  spec: ModelSpec,
  tensors: TensorIndex,
): WeightSource {
  const { attention } = spec.layers[weight.layer] ?? {};
  const { role, layer, expert, head = 0, rows, cols } = weight;
  if (attention?.latent === undefined) throw new RangeError(`${role} without latent attention`);
  const { nopeHeadDim, valueHeadDim, keyValueRank } = attention.latent;
  const source = { role, layer, expert, head, tensor: tensor.name, rows, cols };
  if (tensor.shape.length === 3) {
    tensors.expectShape(tensor, [attention.numHeads, rows, cols]);
    return { ...source, firstRow: head * rows };
  }
  const headRows = nopeHeadDim + valueHeadDim;
  tensors.expectShape(tensor, [attention.numHeads * headRows, keyValueRank]);
  if (role === 'valueUp') return { ...source, firstRow: head * headRows + nopeHeadDim };
  // Blocks of a quantised format run along the rows that become columns.
  const isQuantised = dtypeTraits(tensor.dtype).blockCols > 1;
  return {
    ...source,
    firstRow: head * headRows,
    transposed: true,
    ...(isQuantised && { quantised: 'f16' as const }),
  };
}
