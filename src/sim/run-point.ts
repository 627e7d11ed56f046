/**
 * Runs the systems of a point on its workloads and makes cells of the results. Called by the suites (in worker threads
 * too) and by `sim`. Keeps workloads and runs that several points share, so a suite makes each once.
 */
import type { RoutingRecord } from '../engine/result.js';
import { ModelFormatError } from '../errors.js';
import { bandwidthBoundUs } from './bounds.js';
import { gpuById, type HardwareData, readHardware, unitById } from './hardware.js';
import type { Box } from './modeled-times.js';
import { type ModelShape, modelByName } from './models.js';
import type { Breakdown, Cell, Point, WorkloadName } from './point.js';
import { type SimulationResult, simulate } from './simulator.js';
import { type System, systemById } from './systems.js';
import { popularPairs } from './workload/popularity.js';
import { profileById, type RoutingProfile, readProfiles } from './workload/profiles.js';
import { cutRouting, readRouting } from './workload/routing-file.js';
import { type RoutingShape, syntheticRouting } from './workload/synthetic.js';

/** One system on one workload. */
type Run = {
  ttftMs: number;
  tpotMs: number;
  totalMs: number;
  hitRate: number;
  imbalance: number;
  expertSlots: number;
  breakdown: Breakdown;
};

const MONDE_READINGS = ['monde', 'monde-split'] as const;

export class PointRunner {
  private readonly hardware: HardwareData = readHardware();
  private readonly profiles: readonly RoutingProfile[] = readProfiles();
  private readonly models = new Map<string, ModelShape>();
  private readonly workloads = new Map<string, readonly RoutingRecord[]>();
  private readonly runs = new Map<string, Run>();

  /** Cells in the order of the point's policies. Throws OptionError, ModelFormatError. */
  run(point: Point): Cell[] {
    const model = this.model(point.model);
    const systems = point.policies.map(systemById);
    const needed = [...new Set([...MONDE_READINGS.map(systemById), ...systems])];
    const perWorkload = point.workloads.map((workload) => {
      const requests = this.requests(point, model, workload);
      const runs = new Map(
        needed.map((system) => [system.id, this.runSystem(point, model, system, requests, workload)]),
      );
      const boundMs = bandwidthBoundUs(model, this.box(point, 'ndp'), requests) / 1e3;
      return { runs, boundMs };
    });
    return systems.map((system) => cellOf(point, system, perWorkload));
  }

  /** The timeline of one system on the point's first workload. */
  trace(point: Point, policy: string): SimulationResult {
    const model = this.model(point.model);
    const workload = point.workloads[0] ?? { profile: '', seed: 0 };
    const requests = this.requests(point, model, workload);
    return this.simulate(point, model, systemById(policy), requests, workload, true);
  }

  model(name: string): ModelShape {
    const known = this.models.get(name);
    if (known !== undefined) return known;
    const model = modelByName(name);
    this.models.set(name, model);
    return model;
  }

  /** GPU memory that neither weights nor KV cache may take. */
  get reservedBytes(): number {
    return this.hardware.host.reservedBytes;
  }

  /** Takes a model in that has no description of its own. */
  addModel(name: string, model: ModelShape): void {
    this.models.set(name, model);
  }

  box(point: Point, beside: System['beside']): Box {
    const described = gpuById(this.hardware, point.gpu);
    const gpu = {
      ...described,
      hostToDeviceGBs: point.hostToDeviceGBs ?? described.hostToDeviceGBs,
      memoryBytes: point.memoryGB === undefined ? described.memoryBytes : point.memoryGB * 1e9,
    };
    if (beside === 'cpu') return { gpu, unit: unitById(this.hardware, 'cpu-ddr5'), units: 1 };
    const unit = { ...unitById(this.hardware, 'ndp-dimm'), bandwidthGBs: point.unitBandwidthGBs };
    return { gpu, unit, units: point.units };
  }

  requests(point: Point, model: ModelShape, workload: WorkloadName): readonly RoutingRecord[] {
    const { batch, promptTokens, answerTokens, correlation } = point;
    const { profile, seed } = workload;
    const file = point.routingFile ?? '';
    const key = [model.name, file, profile, seed, batch, promptTokens, answerTokens, correlation].join();
    const known = this.workloads.get(key);
    if (known !== undefined) return known;
    const layers = model.layers.flatMap(({ hasExperts }, layer) => (hasExperts ? [layer] : []));
    const shape = { experts: model.experts, topK: model.topK, layers };
    const requests = point.routingFile
      ? [recorded(point.routingFile, point, model)]
      : this.synthetic(point, shape, workload);
    this.workloads.set(key, requests);
    return requests;
  }

  private synthetic(point: Point, shape: RoutingShape, workload: WorkloadName): readonly RoutingRecord[] {
    const { batch, promptTokens, answerTokens, correlation } = point;
    const { knobs } = profileById(this.profiles, workload.profile);
    return Array.from({ length: batch }, (_, index) =>
      syntheticRouting({
        shape,
        knobs,
        promptTokens,
        answerTokens,
        correlation,
        seed: workload.seed + 1000 * index,
      }),
    );
  }

  private runSystem(
    point: Point,
    model: ModelShape,
    system: System,
    requests: readonly RoutingRecord[],
    workload: WorkloadName,
  ): Run {
    const { suite, variant, policies, workloads, ...rest } = point;
    const box = system.beside === 'ndp' ? {} : { units: 0, unitBandwidthGBs: 0 };
    const recall = system.lookahead === 'router' ? point.recall : 0;
    const key = JSON.stringify({ ...rest, ...box, recall, ...workload, system: system.id });
    const known = this.runs.get(key);
    if (known !== undefined) return known;
    const run = runOf(this.simulate(point, model, system, requests, workload, false));
    this.runs.set(key, run);
    return run;
  }

  private simulate(
    point: Point,
    model: ModelShape,
    system: System,
    requests: readonly RoutingRecord[],
    { seed }: WorkloadName,
    trace: boolean,
  ): SimulationResult {
    return simulate({
      model,
      box: this.box(point, system.beside),
      hardware: this.hardware,
      system,
      requests,
      popular: system.keeps === 'popular' ? popularPairs(requests, seed) : [],
      recall: point.recall,
      ...(point.prefetchWidth === undefined ? {} : { prefetchWidth: point.prefetchWidth }),
      seed,
      trace,
    });
  }
}

/** The first tokens of a recorded run. Throws ModelFormatError where it is of another model. */
function recorded(file: string, point: Point, model: ModelShape): RoutingRecord {
  const record = cutRouting(readRouting(file, point.promptTokens), point.promptTokens, point.answerTokens);
  const layers = model.layers.filter(({ hasExperts }) => hasExperts).length;
  const expected = `${layers} layers, top ${model.topK} of ${model.experts} (${model.name})`;
  const got = `${record.layers.length} layers, top ${record.topK} of ${record.numExperts}`;
  if (layers !== record.layers.length || record.topK !== model.topK || record.numExperts !== model.experts) {
    throw new ModelFormatError({ file, field: 'shape', expected, got });
  }
  return record;
}

function runOf({ requests, totalMs, expertSlots, books }: SimulationResult): Run {
  const mean = (value: (result: SimulationResult['requests'][number]) => number) =>
    requests.reduce((sum, result) => sum + value(result), 0) / requests.length;
  const [first] = requests;
  const experts = first?.experts;
  const denseMs = books.denseUs / 1e3;
  const { units, gpu, link } = books.lastUs;
  const expertsMs = (units + gpu + link) / 1e3;
  return {
    ttftMs: mean(({ timings }) => timings.timeToFirstTokenMs),
    tpotMs: mean(({ timings, usage }) => timings.decodeMs / Math.max(1, usage.completionTokens - 1)),
    totalMs,
    hitRate: experts && experts.activated > 0 ? experts.hits / experts.activated : 0,
    imbalance: first?.devices.imbalance ?? 1,
    expertSlots,
    breakdown: {
      gpuDenseMs: denseMs,
      gpuExpertsMs: books.gpuExpertsUs / 1e3,
      unitMs: books.unitUs / 1e3,
      transferMs: books.transferUs / 1e3,
      unitsLastMs: units / 1e3,
      gpuLastMs: gpu / 1e3,
      linkLastMs: link / 1e3,
      overheadMs: Math.max(0, totalMs - denseMs - expertsMs),
    },
  };
}

type WorkloadRuns = { runs: ReadonlyMap<string, Run>; boundMs: number };

function cellOf(point: Point, system: System, perWorkload: readonly WorkloadRuns[]): Cell {
  const { policies: _policies, ...rest } = point;
  const own = perWorkload.map(({ runs }) => runs.get(system.id)).filter((run) => run !== undefined);
  const mean = (value: (run: Run) => number) => own.reduce((sum, run) => sum + value(run), 0) / own.length;
  const totals = (id: string) => perWorkload.map(({ runs }) => runs.get(id)?.totalMs ?? Number.NaN);
  const monde = MONDE_READINGS.map((id) => ({ id, totals: totals(id), sum: sumOf(totals(id)) }));
  const stronger = monde.reduce((best, reading) => (reading.sum < best.sum ? reading : best));
  const least = perWorkload.map((_, i) => Math.min(...monde.map((reading) => reading.totals[i] ?? Infinity)));
  const ownTotals = totals(system.id);
  const speedups = least.map((mondeMs, i) => mondeMs / (ownTotals[i] ?? Number.NaN));
  const oracle = totals('oracle').map((oracleMs, i) => oracleMs / (ownTotals[i] ?? Number.NaN));
  const boundMs = sumOf(perWorkload.map((entry) => entry.boundMs)) / perWorkload.length;
  const breakdown = (name: keyof Breakdown) => mean((run) => run.breakdown[name]);
  return {
    ...rest,
    policy: system.id,
    title: system.title,
    ttftMs: mean((run) => run.ttftMs),
    tpotMs: mean((run) => run.tpotMs),
    totalMs: mean((run) => run.totalMs),
    speedupOverMonde: sumOf(speedups) / speedups.length,
    speedupLeast: Math.min(...speedups),
    speedupMost: Math.max(...speedups),
    speedups,
    strongerMonde: stronger.id,
    shareOfBound:
      sumOf(perWorkload.map(({ boundMs: ms }, i) => ms / (ownTotals[i] ?? 1))) / perWorkload.length,
    boundMs,
    shareOfOracle: oracle.some(Number.isNaN) ? 0 : sumOf(oracle) / oracle.length,
    hitRate: mean((run) => run.hitRate),
    imbalance: mean((run) => run.imbalance),
    expertSlots: own[0]?.expertSlots ?? 0,
    breakdown: {
      gpuDenseMs: breakdown('gpuDenseMs'),
      gpuExpertsMs: breakdown('gpuExpertsMs'),
      unitMs: breakdown('unitMs'),
      transferMs: breakdown('transferMs'),
      unitsLastMs: breakdown('unitsLastMs'),
      gpuLastMs: breakdown('gpuLastMs'),
      linkLastMs: breakdown('linkLastMs'),
      overheadMs: breakdown('overheadMs'),
    },
  };
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
