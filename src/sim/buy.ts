/**
 * What a box would do with a model, before anything is bought or downloaded: memory by kind and place, predicted times
 * with their bound, what is in the way, and which single change of the box helps most. Called by `plan`; predictions
 * are simulated runs on the routing profiles.
 */

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
  /** False where the units cannot hold the experts. */
  fits: boolean;
  ttftMs: number;
  tpotMs: number;
  totalMs: number;
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
  const changes = changesOf(runner, point).flatMap(({ change, to }) => {
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

function memoryOf(runner: PointRunner, point: Point, model: ModelShape, slots: number): PlannedMemory[] {
  const { gpu, unit, units } = runner.box(point, 'ndp');
  const tokens = (point.promptTokens + point.answerTokens) * point.batch;
  const onGpu = { place: 'GPU', capacityBytes: gpu.memoryBytes };
  return [
    { ...onGpu, kind: 'dense weights', sizeBytes: denseBytes(model) },
    { ...onGpu, kind: `KV cache of ${tokens} tokens`, sizeBytes: kvBytes(model, tokens) },
    { ...onGpu, kind: 'experts', sizeBytes: slots * model.expertBytes },
    {
      place: `each of ${units} units`,
      kind: 'experts',
      sizeBytes: expertsBytes(model) / units,
      capacityBytes: unit.capacityBytes,
    },
  ];
}

/** One thing changed at a time. */
function changesOf(runner: PointRunner, point: Point): { change: string; to: Partial<Point> }[] {
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
  ];
}
