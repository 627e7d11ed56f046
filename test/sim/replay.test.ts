/** The simulated engine decides as the real one does: a recorded run, replayed on the same routing, costs and clock. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { writeOutputFiles } from '../../src/cli/output-files.js';
import type { Device, LayerAssignment, LayerGuess, LayerObservation } from '../../src/device/device.js';
import type { LoadableDevice } from '../../src/device/native.js';
import { SimulatedDevice } from '../../src/device/simulated.js';
import { calibrate } from '../../src/engine/calibrate.js';
import { createEngine } from '../../src/engine/load.js';
import { createPlanner } from '../../src/engine/planning.js';
import type { GenerateResult, PlanReport, RoutingRecord } from '../../src/engine/result.js';
import { prefetchNames, schedulerEntries } from '../../src/schedule/registry.js';
import { readHardware } from '../../src/sim/hardware.js';
import { ModeledTimes } from '../../src/sim/modeled-times.js';
import { modelByName } from '../../src/sim/models.js';
import { RecordedRouting } from '../../src/sim/workload/recorded-routing.js';
import { readRouting } from '../../src/sim/workload/routing-file.js';
import { Fixture } from '../golden/fixture.js';

/** What a device was told, and what of its answers decisions depend on. */
type Tape = {
  plans: string[];
  prefetches: string[];
  clockUs: number[];
  completed: (readonly number[])[];
  observations: LayerObservation[][];
  guesses: (LayerGuess | undefined)[];
};

const emptyTape = (): Tape => ({
  plans: [],
  prefetches: [],
  clockUs: [],
  completed: [],
  observations: [],
  guesses: [],
});

function planText({ layer, count, expertIds, places, slots, transfers }: LayerAssignment): string {
  const column = (values: Int32Array) => values.subarray(0, count).join();
  return `layer ${layer}: ${column(expertIds)} at ${column(places)} in ${column(slots)} copied ${column(transfers)}`;
}

/** Passes all calls on and writes down what is told. Answers that decisions depend on come from `answers`. */
function taped<D extends Device>(device: D, tape: Tape, answers: (tape: Tape) => Partial<Device>): D {
  const own = answers(tape);
  return new Proxy(device, {
    get(target, name) {
      if (name === 'submitExperts') {
        return (plan: LayerAssignment) => {
          tape.plans.push(planText(plan));
          target.submitExperts(plan);
        };
      }
      if (name === 'submitPrefetch') {
        return (...args: [number, number, number]) => {
          tape.prefetches.push(args.join());
          target.submitPrefetch(...args);
        };
      }
      const value = Reflect.get(own, name) ?? Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

function record(device: LoadableDevice, tape: Tape): LoadableDevice {
  return taped(device, tape, () => ({
    nowUs: () => keep(tape.clockUs, device.nowUs()),
    lookahead: () => {
      const guess = device.lookahead();
      return keep(tape.guesses, guess && { ...guess, expertIds: guess.expertIds.slice() });
    },
    completedTransfers: () => keep(tape.completed, [...device.completedTransfers()]),
    observations: () =>
      keep(
        tape.observations,
        device.observations().map((one) => ({ ...one, unitBusyUs: one.unitBusyUs.slice() })),
      ),
  }));
}

function keep<T>(list: T[], value: T): T {
  list.push(value);
  return value;
}

function replay(device: SimulatedDevice, own: Tape, heard: Tape): SimulatedDevice {
  let [clock, completed, observed, guessed] = [0, 0, 0, 0];
  const next = <T>(list: readonly T[], at: number): T => {
    const value = list[at];
    if (value === undefined) throw new Error('the replayed run asks for more than was recorded');
    return value;
  };
  return taped(device, own, () => ({
    nowUs: () => next(heard.clockUs, clock++),
    completedTransfers: () => {
      device.completedTransfers();
      return next(heard.completed, completed++);
    },
    observations: () => next(heard.observations, observed++),
    // A guess may be missing, so that what was recorded is told by the number of entries alone.
    lookahead: () => heard.guesses[guessed++],
  }));
}

let fixture: Fixture | undefined;
afterEach(() => fixture?.dispose());

function runOn(
  loaded: Fixture,
  device: LoadableDevice,
  names: { policy: string; prefetch: string },
  profile: ReturnType<typeof calibrate>,
): GenerateResult {
  const planning = { ...names, cachePolicy: 'score' };
  const planner = createPlanner(loaded.device.info, loaded.opened.spec, planning, profile);
  let result: GenerateResult | undefined;
  const settings = { ...loaded.settings, maxBatchTokens: 7 };
  const flags = new Int32Array(new SharedArrayBuffer(64));
  const engine = createEngine(device, loaded.opened, settings, planner, flags, {
    step: (parts) => {
      for (const part of parts) engine.acknowledge(part.id, 1);
    },
    finished: (_, finished) => {
      result = finished;
    },
    failed: (_, error) => {
      throw error;
    },
  });
  const [prompt] = loaded.golden.prompts;
  engine.add(0, 0, Int32Array.from(prompt?.inputIds ?? []), {
    maxTokens: 30,
    temperature: 0,
    ignoreEos: true,
    recordRouting: true,
  });
  while (engine.step());
  if (result === undefined) throw new Error('the request gave no result');
  return result;
}

/** A device that routes as recorded; its times are some other box's and must not matter. */
function simulatedDevice(loaded: Fixture, routing: RoutingRecord): SimulatedDevice {
  const hardware = readHardware();
  const model = modelByName('granite-3.1-3b-a800m');
  const [gpu] = hardware.gpus;
  const [unit] = hardware.units;
  if (gpu === undefined || unit === undefined) throw new Error('no hardware');
  const times = new ModeledTimes(model, { gpu, unit, units: loaded.device.info.units }, hardware);
  return new SimulatedDevice(
    loaded.opened.spec,
    { ...loaded.device.info, logitColumns: loaded.opened.spec.vocabSize },
    times,
    new RecordedRouting(new Map([[0, routing]]), loaded.opened.spec.layers.length),
  );
}

/** What the simulator reads from the file that --record-routing writes. */
function throughFile(result: GenerateResult): RoutingRecord {
  const folder = mkdtempSync(path.join(tmpdir(), 'nearmoe-routing-'));
  try {
    const file = path.join(folder, 'routing.json');
    writeOutputFiles({ recordRouting: file }, result, { architecture: 'test' } as PlanReport);
    const routing = readRouting(file, 0);
    expect(routing).toEqual(result.routing);
    return routing;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('a replayed run', () => {
  const names = [
    ...schedulerEntries().map(({ name: policy }) => ({ policy, prefetch: 'prefill' })),
    ...prefetchNames().map((prefetch) => ({ policy: 'balanced', prefetch })),
  ];
  const layouts = [
    { model: 'qwen3_moe', units: 2, tpDegree: 2 },
    { model: 'mixtral', units: 3, tpDegree: 1 },
    { model: 'granitemoe', units: 3, tpDegree: 2 },
  ];
  it.each(layouts)('makes the plans of the real one: $model, $units units, TP $tpDegree', (layout) => {
    const { model, ...options } = layout;
    fixture = new Fixture(model, { ...options, gpu: 'host', gpuThreads: 1, prefetch: 'lookahead' });
    const profile = calibrate(fixture.device, fixture.device.info, 64);
    for (const name of names) {
      const real = emptyTape();
      const result = runOn(fixture, record(fixture.device, real), name, profile);
      if (result.routing === undefined) throw new Error('no routing was recorded');
      const simulated = emptyTape();
      const device = simulatedDevice(fixture, throughFile(result));
      const replayed = replay(device, simulated, real);
      runOn(fixture, replayed as unknown as LoadableDevice, name, profile);
      const about = `${name.policy}, prefetch ${name.prefetch}`;
      expect(simulated.plans, about).toEqual(real.plans);
      expect(simulated.prefetches, about).toEqual(real.prefetches);
      expect(real.guesses.filter((guess) => guess !== undefined).length, about).toBeGreaterThan(20);
      expect(real.plans.length, about).toBeGreaterThan(60);
      const pairs = result.routing.tokens * result.routing.layers.length * result.routing.topK;
      expect(device.books.gpuPairs + device.books.ndpPairs, about).toBe(pairs);
    }
  });
});
