/**
 * Time of one plan(): `node bench/schedule.mjs [--json]` after `npm run build:ts`. For each policy and each of a few
 * kinds of layer, 200 different layers are planned 25 times each after a warm-up; printed are median and 99th
 * percentile per call. Kinds: decode (8 of 128 experts active), batched decode (48 of 128) and prefill (128 of 128),
 * each on boxes with four NDP units and Qwen3-30B-A3B's experts in 16 bits: transfers over PCIe 5 that are hardly
 * worth it in decode, and over a link that makes many of them worth it; experts cut over all units, or whole.
 */
import { performance } from 'node:perf_hooks';
import { CostModel } from '../dist/schedule/cost-model.js';
import { profileFromRates } from '../dist/schedule/cost-profile.js';
import { createLayerPlan, createLayerWork, groupRouting } from '../dist/schedule/plan.js';
import { createScheduler, schedulerEntries } from '../dist/schedule/registry.js';

const NUM_EXPERTS = 128;
const LAYERS = 200;
const ROUNDS = 25;

/** @typedef {import('../dist/placement/residency.js').Residency} Residency */
/** @typedef {{ name: string, tokens: number, topK: number, active: number }} Kind */
/** @typedef {{ name: string, ndpGroups: number, costs: CostModel }} Box */

/** @param {number} seed */
function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** @type {Kind[]} */
const kinds = [
  { name: 'decode 8 of 128', tokens: 1, topK: 8, active: 8 },
  { name: 'decode 48 of 128', tokens: 8, topK: 8, active: 48 },
  { name: 'prefill 128 of 128', tokens: 512, topK: 8, active: 128 },
];

/** @type {Box[]} */
const boxes = [
  box('PCIe 5, 1 group of 4', 4, 56),
  box('PCIe 5, 4 groups of 1', 1, 56),
  box('fast link, 1 group of 4', 4, 700),
  box('fast link, 4 groups of 1', 1, 700),
];

/** @type {(name: string, tpDegree: number, transferBandwidthGBs: number) => Box} */
function box(name, tpDegree, transferBandwidthGBs) {
  const expertBytes = 3 * 2048 * 768 * 2;
  const profile = profileFromRates({
    expertBytes,
    flopsPerToken: 6 * 2048 * 768,
    gpuBandwidthGBs: 960,
    gpuGflops: 60e3,
    unitBandwidthGBs: 102.4,
    unitGflops: 1e3,
    tpDegree,
    transferBandwidthGBs,
    gpuOverheadUs: 8,
    ndpOverheadUs: 4,
  });
  return {
    name,
    ndpGroups: 4 / tpDegree,
    costs: new CostModel(profile, { units: 4, tpDegree, expertBytes }),
  };
}

/** @type {(kind: Kind, random: () => number) => import('../dist/schedule/plan.js').LayerWork} */
function layerWork(kind, random) {
  const ids = Array.from({ length: NUM_EXPERTS }, (_, id) => id).sort(() => random() - 0.5);
  const chosen = ids.slice(0, kind.active);
  for (let pair = kind.active; pair < kind.tokens * kind.topK; pair++) {
    chosen.push(ids[Math.floor(kind.active * random() ** 2)] ?? 0);
  }
  const work = createLayerWork(NUM_EXPERTS);
  groupRouting(0, { tokens: chosen.length, topK: 1, topkIds: Int32Array.from(chosen) }, work);
  return work;
}

/** @type {(count: number, random: () => number) => Residency} */
function residencyOf(count, random) {
  const slots = Int32Array.from({ length: count }, (_, i) => (random() < 0.4 ? i : -1));
  return {
    slots,
    arrivalUs: new Float64Array(count),
    availableSlots: count,
    laneFreeUs: 0,
    takeSlots(wanted, out) {
      for (let i = 0; i < wanted; i++) out[i] = 1000 + i;
    },
  };
}

/** @type {(policy: string, kind: Kind, box: Box) => { policy: string, kind: string, box: string, medianUs: number, p99Us: number }} */
function measure(policy, kind, { name, ndpGroups, costs }) {
  const random = seeded(7);
  const scheduler = createScheduler(policy, { numExperts: NUM_EXPERTS, ndpGroups, slotsPerLayer: 24 });
  const layers = Array.from({ length: LAYERS }, () => {
    const work = layerWork(kind, random);
    return { work, residency: residencyOf(work.count, random) };
  });
  const plan = createLayerPlan(NUM_EXPERTS);
  /** @type {number[]} */
  const times = [];
  for (let round = -10; round < ROUNDS; round++) {
    for (const { work, residency } of layers) {
      const start = performance.now();
      scheduler.plan(work, residency, costs, plan);
      if (round >= 0) times.push((performance.now() - start) * 1e3);
    }
  }
  times.sort((a, b) => a - b);
  const at = (/** @type {number} */ share) => times[Math.floor(share * (times.length - 1))] ?? 0;
  return { policy, kind: kind.name, box: name, medianUs: at(0.5), p99Us: at(0.99) };
}

const rows = [];
for (const { name } of schedulerEntries()) {
  for (const kind of kinds) for (const target of boxes) rows.push(measure(name, kind, target));
}
if (process.argv.includes('--json')) {
  console.log(JSON.stringify({ bench: 'schedule', node: process.version, rows }));
} else {
  console.log(`plan() per call, Node ${process.version}`);
  for (const row of rows) {
    const times = `${row.medianUs.toFixed(1).padStart(7)} us median ${row.p99Us.toFixed(1).padStart(7)} us p99`;
    console.log(`${row.policy.padEnd(14)} ${row.kind.padEnd(20)} ${row.box.padEnd(26)} ${times}`);
  }
}
