/**
 * Brings a checkpoint's weights into the device: tables of what lies where, handed to native in lots small enough for
 * progress and cancellation. Called by load.ts. Native reads and packs the values; none of them comes here.
 */
import { LOAD_COLUMNS, type NativeDevice } from '../binding.js';
import { AbortedError, ModelFormatError } from '../errors.js';
import { dtypeNumber, storedBytes } from '../model/dtypes.js';
import { TRANSFORMS, WEIGHT_ROLES, type WeightSource } from '../model/model-spec.js';
import type { OpenedModel } from '../model/open-model.js';
import { ENCODINGS, type TensorIndex, type TensorInfo } from '../model/tensor-index.js';

/**
 * Bytes after which a lot is handed over: a small part of the model, since a lot's source pages are resident beside the
 * packed weights, yet so many that threads seldom wait for each other between lots.
 */
const lotBytesOf = (totalBytes: number) => Math.min(64e6, Math.max(8e6, totalBytes / 64));

const ROLE_NUMBERS = new Map(WEIGHT_ROLES.map((role, number) => [role, number]));

export type WeightTarget = Pick<NativeDevice, 'openFile' | 'loadWeights'>;

/**
 * Loads all weights. Throws AbortedError once `isCancelled`, ModelFormatError (ERR_WEIGHT_VALUE) where a weight holds
 * NaN or infinity.
 */
export function loadWeights(
  model: Pick<OpenedModel, 'weights' | 'tensors'>,
  target: WeightTarget,
  progress: (doneBytes: number, totalBytes: number) => void,
  isCancelled: () => boolean,
): void {
  const { weights, tensors } = model;
  const files = tensors.files.map((path) => target.openFile(path));
  const totalBytes = weights.reduce((sum, weight) => sum + sourceBytes(weight, tensors), 0);
  let doneBytes = 0;
  progress(0, totalBytes);
  for (let first = 0; first < weights.length; ) {
    if (isCancelled()) throw new AbortedError('Loading the model');
    const { end, lotBytes } = nextLot(weights, first, tensors, lotBytesOf(totalBytes));
    const lot = weights.slice(first, end);
    loadLot(lot, tensors, files, target);
    doneBytes += lotBytes;
    progress(doneBytes, totalBytes);
    first = end;
  }
}

/** A lot ends with its layer or when it is large enough. */
function nextLot(weights: readonly WeightSource[], first: number, tensors: TensorIndex, fullBytes: number) {
  let end = first;
  let lotBytes = 0;
  const layer = weights[first]?.layer;
  while (end < weights.length && lotBytes < fullBytes) {
    const weight = weights[end];
    if (weight === undefined || weight.layer !== layer) break;
    lotBytes += sourceBytes(weight, tensors);
    end++;
  }
  return { end, lotBytes };
}

function loadLot(
  lot: readonly WeightSource[],
  tensors: TensorIndex,
  files: readonly number[],
  target: WeightTarget,
): void {
  const table = loadTable(lot, tensors, files);
  try {
    target.loadWeights(table, lot.length);
  } catch (error) {
    throw namingTensor(error, lot, tensors);
  }
}

/** Rows of LOAD_COLUMNS; `files` are the numbers of the index's files. */
export function loadTable(
  lot: readonly WeightSource[],
  tensors: TensorIndex,
  files: readonly number[],
): Float64Array {
  const table = new Float64Array(lot.length * LOAD_COLUMNS);
  lot.forEach((weight, index) => {
    const tensor = tensorOf(weight, tensors);
    const { firstRow, firstCol = 0, width = 0 } = weight;
    const offsetBytes =
      tensor.offsetBytes +
      rowBytes(tensor, width || sourceCols(weight)) * firstRow +
      rowBytes(tensor, firstCol);
    const role = ROLE_NUMBERS.get(weight.role) ?? -1;
    const { layer, expert, head, rows, cols } = weight;
    const row = [
      role,
      layer,
      head ?? expert,
      files[tensor.file] ?? -1,
      offsetBytes,
      dtypeNumber(tensor.dtype),
      rows,
      cols,
      weight.quantised === undefined ? -1 : dtypeNumber(weight.quantised),
      weight.rowStride ?? 1,
      weight.transposed ? 1 : 0,
      ...scaleColumns(weight, tensor, files),
      width,
      weight.rowBlock ?? 1,
      weight.transform === undefined ? 0 : 1 + TRANSFORMS.indexOf(weight.transform),
    ];
    table.set(row, index * LOAD_COLUMNS);
  });
  return table;
}

/** Encoding, first row, rows of the tensor, file and offset of its scales. */
function scaleColumns(
  { firstRow }: WeightSource,
  { scales, shape }: TensorInfo,
  files: readonly number[],
): number[] {
  if (scales === undefined) return [0, 0, 0, 0, 0];
  const tensorRows = shape.slice(0, -1).reduce((product, dim) => product * dim, 1);
  const encoding = 1 + ENCODINGS.indexOf(scales.encoding);
  return [encoding, firstRow, tensorRows, files[scales.file] ?? -1, scales.offsetBytes];
}

/** Native tells the row of the table; the person wants file and tensor. */
function namingTensor(error: unknown, lot: readonly WeightSource[], tensors: TensorIndex): unknown {
  const { code, row, message } = error as { code?: unknown; row?: unknown; message?: string };
  const weight = typeof row === 'number' ? lot[row] : undefined;
  if (weight === undefined || typeof code !== 'string') return error;
  const tensor = tensorOf(weight, tensors);
  return new ModelFormatError({
    code: code === 'ERR_WEIGHT_VALUE' ? 'ERR_WEIGHT_VALUE' : 'ERR_MODEL_FORMAT',
    file: tensors.pathOf(tensor),
    field: weight.tensor,
    expected: code === 'ERR_WEIGHT_VALUE' ? 'finite values' : 'readable weights',
    got: code === 'ERR_WEIGHT_VALUE' ? 'NaN or infinity' : (message ?? 'an error'),
    offset: tensor.offsetBytes,
    cause: error,
  });
}

function tensorOf(weight: WeightSource, tensors: TensorIndex): TensorInfo {
  const tensor = tensors.get(weight.tensor);
  if (tensor === undefined) throw new RangeError(`no tensor ${weight.tensor}`);
  return tensor;
}

function sourceBytes(weight: WeightSource, tensors: TensorIndex): number {
  const rows = weight.transposed ? weight.cols : weight.rows;
  return rowBytes(tensorOf(weight, tensors), sourceCols(weight)) * rows;
}

/** Values of a row of the tensor that are the weight's. */
function sourceCols({ transposed, rows, cols }: WeightSource): number {
  return transposed ? rows : cols;
}

function rowBytes(tensor: TensorInfo, cols: number): number {
  if (tensor.scales?.encoding === 'fp8_blocks') return cols;
  if (tensor.scales?.encoding === 'mxfp4_split') return cols / 2;
  const sizeBytes = storedBytes(tensor.dtype, 1, cols);
  if (sizeBytes === undefined)
    throw new RangeError(`${tensor.name}: ${cols} columns do not fill ${tensor.dtype} blocks`);
  return sizeBytes;
}
