/**
 * Random scheduling instances for the tests of policies: works from decode to prefill, GPUs and NDP groups of every
 * ratio, any residency, prefetches under way, transfers from nearly free to hopeless. Deterministic by seed.
 */
import type { Residency } from '../../../src/placement/residency.js';
import { createLayerWork, groupRouting, type LayerWork } from '../../../src/schedule/plan.js';
import type { Costs, SchedulerShape } from '../../../src/schedule/scheduler.js';

export type Random = () => number;

export type Instance = { shape: SchedulerShape; work: LayerWork; residency: TestResidency; costs: Costs };

/** Uniform in [0, 1), by Steele et al.'s splitmix with 32 bits of state. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

export function integer(random: Random, min: number, max: number): number {
  return min + Math.floor(random() * (max - min + 1));
}

/** Evenly spread in log space. */
function logUniform(random: Random, min: number, max: number): number {
  return min * (max / min) ** random();
}

/** A residency given by hand; slots for transfers are those from `firstFreeSlot` on. */
export class TestResidency implements Residency {
  constructor(
    readonly slots: Int32Array,
    readonly arrivalUs: Float64Array,
    readonly availableSlots: number,
    readonly laneFreeUs: number,
    readonly firstFreeSlot: number,
  ) {}

  takeSlots(count: number, out: Int32Array): void {
    if (count > this.availableSlots) throw new RangeError(`${count} of ${this.availableSlots} slots`);
    for (let i = 0; i < count; i++) out[i] = this.firstFreeSlot + i;
  }
}

/** Time grows with tokens: a floor for reading weights, then compute; a faster unit scales all of it. */
function randomCosts(random: Random, groups: number): Costs {
  const readUs = logUniform(random, 1, 50);
  const gpuSpeed = logUniform(random, 0.3, 12);
  const gpuTokenUs = readUs / logUniform(random, 4, 400);
  const ndpTokenUs = readUs / logUniform(random, 0.8, 60);
  const lastGroupSlower = random() < 0.3 ? integer(random, 2, 3) : 1;
  const smooth = random() < 0.5;
  const time = (tokens: number, tokenUs: number): number =>
    smooth ? readUs + tokenUs * tokens : Math.max(readUs, tokenUs * tokens);
  return {
    gpuExpertUs: (tokens) => time(tokens, gpuTokenUs) / gpuSpeed,
    ndpExpertUs: (tokens, group) => time(tokens, ndpTokenUs) * (group === groups - 1 ? lastGroupSlower : 1),
    transferUs: readUs * logUniform(random, 0.05, 30),
    ...(random() < 0.2 && { sharedExpertUs: (tokens) => time(tokens, gpuTokenUs) / gpuSpeed }),
    gpuOverheadUs: random() < 0.5 ? 0 : readUs * random(),
    ndpOverheadUs: random() < 0.5 ? 0 : readUs * random(),
  };
}

function randomWork(random: Random, numExperts: number, active: number): LayerWork {
  const work = createLayerWork(numExperts);
  const ids = Array.from({ length: numExperts }, (_, id) => id);
  for (let i = 0; i < active; i++) {
    const other = integer(random, i, numExperts - 1);
    [ids[i], ids[other]] = [ids[other] ?? 0, ids[i] ?? 0];
  }
  const most = random() < 0.4 ? 1 : Math.ceil(logUniform(random, 2, 200));
  const chosen: number[] = [];
  for (const id of ids.slice(0, active)) {
    const tokens = random() < 0.5 ? integer(random, 1, most) : Math.ceil(logUniform(random, 1, most));
    for (let t = 0; t < tokens; t++) chosen.push(id);
  }
  groupRouting(0, { tokens: chosen.length, topK: 1, topkIds: Int32Array.from(chosen) }, work);
  return work;
}

function randomResidency(random: Random, work: LayerWork, costs: Costs): TestResidency {
  const slots = new Int32Array(work.count).fill(-1);
  const arrivalUs = new Float64Array(work.count);
  const residentShare = random() < 0.2 ? 0 : random();
  const arrivingShare = random() < 0.5 ? 0 : 0.3 * random();
  const laneFreeUs = random() < 0.5 ? 0 : costs.transferUs * random();
  let slot = 0;
  let queued = 0;
  for (let i = 0; i < work.count; i++) {
    if (random() < residentShare) slots[i] = slot++;
    else if (queued < 4 && random() < arrivingShare) {
      slots[i] = slot++;
      arrivalUs[i] = Math.max(laneFreeUs, 0.1) + queued++ * costs.transferUs;
    }
  }
  const available = random() < 0.15 ? 0 : integer(random, 0, work.count);
  return new TestResidency(slots, arrivalUs, available, laneFreeUs, slot + 5);
}

export function randomInstance(random: Random, minActive: number, maxActive: number): Instance {
  const active = integer(random, minActive, maxActive);
  const numExperts = active + integer(random, 0, 2 * active);
  const ndpGroups = random() < 0.5 ? 1 : integer(random, 2, 6);
  const shape = { numExperts, ndpGroups, slotsPerLayer: integer(random, 0, numExperts) };
  const costs = randomCosts(random, ndpGroups);
  const work = randomWork(random, numExperts, active);
  return { shape, work, residency: randomResidency(random, work, costs), costs };
}
