/**
 * What a box would do with a model, before anything is bought or downloaded: memory by kind and place, predicted times
 * with their bound, what is in the way, and which single change of the box helps most. Called by `plan`; predictions
 * are simulated runs on the routing profiles.
 */

import { answerBoundUs, promptBoundUs } from './bounds.js';
import { denseBytes, expertsBytes, kvBytes, type ModelShape } from './models.js';
import type { Point } from './point.js';
import { inTheWay } from './report/summary.js';
import { PointRunner } from './run-point.js';

export type PlannedMemory = { place: string; kind: string; sizeBytes: number; capacityBytes: number };

/** A change of the box and the predicted times with it. */
export type Change = { change: string; ttftMs: number; tpotMs: number; speedup: number };

export type BoxPlan = {
  model: string;
  gpu: string;
  units: number;
  unitBandwidthGBs: number;
  memory: PlannedMemory[];
  /** Experts that fit into VRAM, and all of them. */
  expertSlots: number;
  experts: number;
  /** False where the units cannot hold the experts; units from which they could. */
  fits: boolean;
  unitsToFit: number;
  ttftMs: number;
  tpotMs: number;
  totalMs: number;
  /** Least possible of each: what reading weights and moving experts takes at nominal rates. */
  ttftBoundMs: number;
  tpotBoundMs: number;
  boundMs: number;
  /** The bound's time over the predicted one. */
  shareOfBound: number;
  bottleneck: string;
  changes: Change[];
};

/** `shape`: of a model that is no file of this folder. Throws OptionError where the GPU cannot hold its dense part. */
export function planBox(point: Point, shape?: ModelShape): BoxPlan {
  const runner = new PointRunner();
  if (shape !== undefined) runner.addModel(point.model, shape);
  const model = runner.model(point.model);
  const cell = runCell(runner, point);
  const memory = memoryOf(runner, point, model, cell.expertSlots);
  const bounds = boundsOf(runner, point, model);
  const changes = changesOf(runner, point, model).flatMap(({ change, to }) => {
    const changed = runCell(runner, { ...point, ...to });
    const speedup = cell.totalMs / changed.totalMs;
    return { change, ttftMs: changed.ttftMs, tpotMs: changed.tpotMs, speedup };
  });
  return {
    model: model.name,
    gpu: runner.box(point, 'ndp').gpu.name,
    units: point.units,
    unitBandwidthGBs: point.unitBandwidthGBs,
    memory,
    expertSlots: cell.expertSlots,
    experts: expertsBytes(model) / model.expertBytes,
    fits: memory.every(({ sizeBytes, capacityBytes }) => sizeBytes <= capacityBytes),
    unitsToFit: Math.ceil(expertsBytes(model) / runner.box(point, 'ndp').unit.capacityBytes),
    ...bounds,
    ttftMs: cell.ttftMs,
    tpotMs: cell.tpotMs,
    totalMs: cell.totalMs,
    boundMs: cell.boundMs,
    shareOfBound: cell.shareOfBound,
    bottleneck: inTheWay(cell),
    changes: changes.sort((left, right) => right.speedup - left.speedup),
  };
}

function runCell(runner: PointRunner, point: Point) {
  const [cell] = runner.run({ ...point, policies: ['ours'] });
  if (cell === undefined) throw new RangeError('a point without cells');
  return cell;
}

/** Means over the point's workloads. */
function boundsOf(runner: PointRunner, point: Point, model: ModelShape) {
  const box = runner.box(point, 'ndp');
  const all = point.workloads.map((workload) => runner.requests(point, model, workload));
  const mean = (us: (requests: (typeof all)[number]) => number) =>
    all.reduce((sum, requests) => sum + us(requests), 0) / all.length / 1e3;
  return {
    ttftBoundMs: mean((requests) => promptBoundUs(model, box, requests)),
    tpotBoundMs:
      mean((requests) => answerBoundUs(model, box, requests)) / Math.max(1, point.answerTokens - 1),
  };
}

function memoryOf(runner: PointRunner, point: Point, model: ModelShape, slots: number): PlannedMemory[] {
  const { gpu, unit, units } = runner.box(point, 'ndp');
  const tokens = (point.promptTokens + point.answerTokens) * point.batch;
  const onGpu = { place: 'GPU', capacityBytes: gpu.memoryBytes };
  return [
    { ...onGpu, kind: 'dense weights', sizeBytes: denseBytes(model) },
    { ...onGpu, kind: `KV cache of ${tokens} tokens`, sizeBytes: kvBytes(model, tokens) },
    { ...onGpu, kind: 'copies of experts', sizeBytes: slots * model.expertBytes },
    { ...onGpu, kind: 'driver, activations', sizeBytes: runner.reservedBytes },
    {
      place: `each of ${units} units`,
      kind: 'all experts',
      sizeBytes: expertsBytes(model) / units,
      capacityBytes: unit.capacityBytes,
    },
  ];
}

/** One thing changed at a time. */
function changesOf(
  runner: PointRunner,
  point: Point,
  model: ModelShape,
): { change: string; to: Partial<Point> }[] {
  const { gpu } = runner.box(point, 'ndp');
  const memoryGB = (2 * gpu.memoryBytes) / 1e9;
  const hostToDeviceGBs = 2 * gpu.hostToDeviceGBs;
  return [
    { change: `${2 * point.units} units`, to: { units: 2 * point.units } },
    {
      change: `units of ${2 * point.unitBandwidthGBs} GB/s`,
      to: { unitBandwidthGBs: 2 * point.unitBandwidthGBs },
    },
    { change: `${memoryGB} GB of GPU memory`, to: { memoryGB } },
    { change: `a link of ${hostToDeviceGBs} GB/s`, to: { hostToDeviceGBs } },
    ...(point.gpu === 'rtx5090' ? [] : [{ change: 'an RTX 5090', to: { gpu: 'rtx5090' } }]),
    ...quantised(runner, model),
  ];
}

/** The same model with its experts in Q4_0 (18 bytes for 32 weights), where they are wider. */
function quantised(runner: PointRunner, model: ModelShape): { change: string; to: Partial<Point> }[] {
  const weights = 3 * model.hiddenSize * model.expertIntermediateSize;
  const expertBytes = Math.ceil((weights * 18) / 32);
  if (model.expertBytes < 1.5 * expertBytes) return [];
  const name = `${model.name} with experts in Q4_0`;
  runner.addModel(name, { ...model, expertBytes });
  return [{ change: 'experts in 4 bits (Q4_0)', to: { model: name } }];
}
