/**
 * Which weights a ModelSpec needs, and where a checkpoint keeps each of them: the step from names to row ranges.
 * Called by open-model.ts for every format. Names every missing, misshapen and surplus tensor; reads no values.
 */
import { ModelFormatError } from '../errors.js';
import type { WeightName, WeightNames } from './families/family.js';
import { headNeeds, headView, latentShapes } from './latent-weights.js';
import type { LayerSpec, ModelSpec, WeightNeed, WeightShape, WeightSource } from './model-spec.js';
import { convKernelView, heldRowsView, recurrentShapes } from './recurrent-weights.js';
import type { TensorIndex, TensorInfo } from './tensor-index.js';

/** All weights of a model in the order of its computation. */
export function* neededWeights(spec: ModelSpec): Generator<WeightNeed> {
  const { hiddenSize: hidden, vocabSize } = spec;
  const withBias = spec.norm.kind === 'layer';
  yield need(['embedding', vocabSize, hidden], -1, -1);
  for (const [layer, layerSpec] of spec.layers.entries()) {
    for (const shape of attentionShapes(layerSpec, hidden, withBias)) yield need(shape, layer, -1);
    yield* headNeeds(layerSpec, layer);
    yield* ffnNeeds(layerSpec, hidden, layer);
  }
  yield need(['finalNorm', 1, hidden], -1, -1);
  if (withBias) yield need(['finalNormBias', 1, hidden], -1, -1);
  if (!spec.tiedEmbeddings) yield need(['lmHead', vocabSize, hidden], -1, -1);
  if (spec.lmHeadBias) yield need(['lmHeadBias', 1, vocabSize], -1, -1);
}

function need([role, rows, cols]: WeightShape, layer: number, expert: number): WeightNeed {
  return { role, layer, expert, rows, cols };
}

function attentionShapes(layer: LayerSpec, hidden: number, withNormBias: boolean): WeightShape[] {
  const { attention, recurrent } = layer;
  const { numHeads, numKvHeads, headDim, qkNorm, latent } = attention;
  const [queryRows, keyRows] = [numHeads * headDim, numKvHeads * headDim];
  const shapes: WeightShape[] = [
    ['attentionNorm', 1, hidden],
    ...(recurrent !== undefined
      ? recurrentShapes(recurrent, hidden)
      : latent === undefined
        ? ([
            ['query', queryRows, hidden],
            ['key', keyRows, hidden],
            ...(attention.keysAsValues ? [] : ([['value', keyRows, hidden]] satisfies WeightShape[])),
            ['output', hidden, queryRows],
          ] satisfies WeightShape[])
        : latentShapes(latent, numHeads, hidden)),
    ['ffnNorm', 1, hidden],
  ];
  if (withNormBias) shapes.push(['attentionNormBias', 1, hidden], ['ffnNormBias', 1, hidden]);
  if (layer.postNorms) shapes.push(['attentionPostNorm', 1, hidden], ['ffnPostNorm', 1, hidden]);
  if (layer.outputScale) shapes.push(['layerScale', 1, 1]);
  if (attention.qkvBias)
    shapes.push(['queryBias', 1, queryRows], ['keyBias', 1, keyRows], ['valueBias', 1, keyRows]);
  if (attention.outputGate) shapes.push(['outputGate', queryRows, hidden]);
  if (attention.sinks) shapes.push(['attentionSinks', 1, numHeads]);
  if (attention.outputBias) shapes.push(['outputBias', 1, hidden]);
  if (qkNorm === 'head') shapes.push(['queryNorm', 1, headDim], ['keyNorm', 1, headDim]);
  if (qkNorm === 'full') shapes.push(['queryNorm', 1, queryRows], ['keyNorm', 1, keyRows]);
  return shapes;
}

function* ffnNeeds({ ffn }: LayerSpec, hidden: number, layer: number): Generator<WeightNeed> {
  const width = ffn.intermediateSize;
  if (ffn.kind === 'dense') {
    yield need(['gate', width, hidden], layer, -1);
    yield need(['up', width, hidden], layer, -1);
    yield need(['down', hidden, width], layer, -1);
    return;
  }
  yield need(['router', ffn.numExperts, hidden], layer, -1);
  if (ffn.router.logitBias) yield need(['routerBias', 1, ffn.numExperts], layer, -1);
  if (ffn.router.selectionBias) yield need(['routerSelectionBias', 1, ffn.numExperts], layer, -1);
  if (ffn.router.expertScale) yield need(['routerExpertScale', 1, ffn.numExperts], layer, -1);
  if (ffn.branchNorms) {
    for (const role of ['sharedPostNorm', 'expertNorm', 'expertPostNorm', 'routerNorm'] as const)
      yield need([role, 1, hidden], layer, -1);
  }
  for (let expert = 0; expert < ffn.numExperts; expert++) {
    yield need(['expertGate', width, hidden], layer, expert);
    yield need(['expertUp', width, hidden], layer, expert);
    yield need(['expertDown', hidden, width], layer, expert);
    if (!ffn.expertBias) continue;
    yield need(['expertGateBias', 1, width], layer, expert);
    yield need(['expertUpBias', 1, width], layer, expert);
    yield need(['expertDownBias', 1, hidden], layer, expert);
  }
  if (ffn.sharedExpert === undefined) return;
  const shared = ffn.sharedExpert.intermediateSize;
  yield need(['sharedGate', shared, hidden], layer, -1);
  yield need(['sharedUp', shared, hidden], layer, -1);
  yield need(['sharedDown', hidden, shared], layer, -1);
  if (ffn.sharedExpert.gate === 'sigmoid') yield need(['sharedExpertGate', 1, hidden], layer, -1);
}

/** Tensors that checkpoints may hold though nothing computes with them. */
const IGNORED = [/\.rotary_emb\.inv_freq$/, /^model\.mtp_/];

export type ResolveOptions = {
  /** Names of further tensors that may be there unused. */
  ignored?: readonly string[];
  /** Beginnings of such names: parts of the checkpoint that text does without. */
  unusedPrefixes?: readonly string[];
  /** Layers behind the model's own that checkpoints hold for multi-token prediction, which is not used here. */
  extraLayers?: number;
  /** For errors about the checkpoint as a whole: its folder or file. */
  path: string;
};

/**
 * A source for each weight of the spec. Throws ModelFormatError: ERR_WEIGHT_MISSING, ERR_WEIGHT_SURPLUS, or
 * ERR_MODEL_FORMAT for a wrong shape.
 */
export function resolveWeights(
  spec: ModelSpec,
  names: WeightNames,
  tensors: TensorIndex,
  options: ResolveOptions,
): WeightSource[] {
  const sources: WeightSource[] = [];
  const missing: string[] = [];
  const used = new Set<string>();
  for (const weight of neededWeights(spec)) {
    const source = findSource(weight, spec, names, tensors);
    if (typeof source === 'string') missing.push(source);
    else {
      sources.push(source);
      used.add(source.tensor);
    }
    // A checkpoint of another model would fill the list; the first few names tell as much.
    if (missing.length >= MAX_LISTED) break;
  }
  if (missing.length > 0) throw missingError(missing, options.path);
  checkSurplus(tensors, used, spec, options);
  return sources;
}

const MAX_LISTED = 8;

function missingError(missing: string[], path: string): ModelFormatError {
  const [first = '', ...others] = missing;
  const more = others.length === 0 ? '' : ` (also missing: ${others.join(', ')})`;
  return new ModelFormatError({
    code: 'ERR_WEIGHT_MISSING',
    file: path,
    field: first,
    expected: 'a tensor of this name',
    got: `none${more}`,
  });
}

/** The weight's source, or the name that is missing. */
function findSource(
  weight: WeightNeed,
  spec: ModelSpec,
  names: WeightNames,
  tensors: TensorIndex,
): WeightSource | string {
  let wanted = '';
  for (const name of names[weight.role] ?? []) {
    const template = typeof name === 'string' ? name : name.tensor;
    const tensorName = template.replace('{layer}', `${weight.layer}`).replace('{expert}', `${weight.expert}`);
    wanted ||= tensorName;
    const tensor = tensors.get(tensorName);
    if (tensor === undefined) continue;
    return weight.head === undefined
      ? viewOf(weight, name, tensor, spec, tensors)
      : headView(weight, tensor, spec, tensors);
  }
  return wanted || `${weight.role} of layer ${weight.layer}`;
}

function viewOf(
  weight: WeightNeed,
  name: WeightName,
  tensor: TensorInfo,
  spec: ModelSpec,
  tensors: TensorIndex,
): WeightSource {
  const { role, layer, expert, rows, cols } = weight;
  if (role === 'convKernel') return convKernelView(weight, tensor, tensors);
  if (typeof name !== 'string' && 'holds' in name) {
    return heldRowsView(weight, name, tensor, spec, shapesOf(spec, layer), tensors);
  }
  const view =
    typeof name !== 'string' && 'parts' in name
      ? name
      : { tensor: typeof name === 'string' ? name : name.tensor, part: 0, parts: 1 };
  const stacked = expert >= 0 && !view.tensor.includes('{expert}');
  const block = stacked ? expert : 0;
  const source = {
    role,
    layer,
    expert,
    tensor: tensor.name,
    ...(typeof name !== 'string' && 'transform' in name && { transform: name.transform }),
  };
  const experts = stacked ? [numExpertsOf(spec, layer)] : [];
  if (view.transposed) {
    const width = rows * view.parts;
    tensors.expectShape(tensor, [...experts, cols, width]);
    return {
      ...source,
      transposed: true,
      firstRow: block * cols,
      firstCol: view.part * rows,
      width,
      rows,
      cols,
    };
  }
  const isVector = rows === 1 && role !== 'router' && (stacked || tensor.shape.length === 1);
  const matrix = isVector ? [cols * view.parts] : [rows * view.parts, cols];
  tensors.expectShape(tensor, [...experts, ...matrix]);
  if (!view.interleaved) {
    const firstRow = block * rows * view.parts + view.part * rows;
    return { ...source, firstRow, rows, cols };
  }
  // A vector's values are rows of one column here, so that they can be taken at a stride.
  const [count, width] = isVector ? [cols, 1] : [rows, cols];
  const firstRow = block * count * view.parts + view.part;
  return { ...source, firstRow, rowStride: view.parts, rows: count, cols: width };
}

function shapesOf({ layers, hiddenSize }: ModelSpec, layer: number): WeightShape[] {
  const layerSpec = layers[layer];
  return layerSpec === undefined ? [] : attentionShapes(layerSpec, hiddenSize, false);
}

function numExpertsOf(spec: ModelSpec, layer: number): number {
  const ffn = spec.layers[layer]?.ffn;
  return ffn?.kind === 'moe' ? ffn.numExperts : 0;
}

function checkSurplus(
  tensors: TensorIndex,
  used: Set<string>,
  spec: ModelSpec,
  options: ResolveOptions,
): void {
  const ignored = new Set(options.ignored);
  const { unusedPrefixes = [] } = options;
  // Tied checkpoints may hold the shared matrix under both names.
  if (spec.tiedEmbeddings) ignored.add('lm_head.weight');
  const isExtra = (name: string) => {
    const layer = Number(/^(?:model\.layers|blk)\.(\d+)\./.exec(name)?.[1] ?? -1);
    return layer >= spec.layers.length && layer < spec.layers.length + (options.extraLayers ?? 0);
  };
  const surplus = [...tensors].filter(
    ({ name }) =>
      !used.has(name) &&
      !ignored.has(name) &&
      !isExtra(name) &&
      !unusedPrefixes.some((prefix) => name.startsWith(prefix)) &&
      !IGNORED.some((pattern) => pattern.test(name)),
  );
  const [first] = surplus;
  if (first === undefined) return;
  const others = surplus.slice(1, MAX_LISTED).map((tensor) => tensor.name);
  const more = others.length === 0 ? '' : ` and ${surplus.length - 1} more (${others.join(', ')})`;
  throw new ModelFormatError({
    code: 'ERR_WEIGHT_SURPLUS',
    file: tensors.pathOf(first),
    field: first.name,
    expected: `only tensors that a ${spec.architecture} model of this config has`,
    got: `this one${more}`,
    hint: 'The config may describe another model than the weights.',
  });
}
