/**
 * Cache and prefetch on recorded routing: `node bench/schedule-traces.mjs [--json]` after `npm run build:ts`.
 * Replays the public traces beside this repository (../shared/traces) through the planner in virtual time: the first
 * 128 tokens as a prefill, the rest as decode, on a box like an RTX 5080 on PCIe 5 with four NDP units of 51.2 GB/s.
 * Prints for decode: hit rate, GPU copies per token, mean time of a layer's experts against NDP alone; the last part
 * varies the prefill predictor's constants. Says "skipped" where the traces are absent.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ExpertCache } from '../dist/placement/expert-cache.js';
import { CostModel } from '../dist/schedule/cost-model.js';
import { profileFromRates } from '../dist/schedule/cost-profile.js';
import { Planner } from '../dist/schedule/planner.js';
import { PrefillPredictor } from '../dist/schedule/predictors/prefill.js';
import { Prefetcher } from '../dist/schedule/prefetcher.js';
import { createPrefetcher, createScheduler } from '../dist/schedule/registry.js';

/** @typedef {{ name: string, layers: number, numExperts: number, topK: number, tokens: number, ids: Uint8Array }} Trace */
/**
 * @typedef {object} Setup
 * @property {string} policy
 * @property {string} prefetch
 * @property {string} eviction
 * @property {number} share of the experts that VRAM holds
 * @property {import('../dist/placement/activation-rates.js').RateOptions & { noiseActivations?: number, margin?: number }} [tuned]
 */

const PREFILL_TOKENS = 128;
const ATTENTION_US = 60;
const folder = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../shared/traces');

/** @returns {Trace[]} */
function readTraces() {
  /** @type {Trace[]} */
  const traces = [];
  const gptOss = path.join(folder, 'gpt-oss-20b');
  for (const file of readdirSync(gptOss).filter((name) => name.endsWith('.json'))) {
    const { layers, experts, topk, tokens, ids_b64 } = JSON.parse(
      readFileSync(path.join(gptOss, file), 'utf8'),
    );
    const ids = new Uint8Array(Buffer.from(ids_b64, 'base64'));
    traces.push({ name: 'gpt-oss-20b', layers, numExperts: experts, topK: topk, tokens, ids });
  }
  const lines = readFileSync(path.join(folder, 'olmoe-1b-7b/trace_olmoe_299.jsonl'), 'utf8')
    .trim()
    .split('\n');
  const rows = lines.map((line) => /** @type {number[][]} */ (JSON.parse(line).layers));
  const layers = rows[0]?.length ?? 0;
  const ids = Uint8Array.from(rows.flat(2));
  traces.push({ name: 'olmoe-1b-7b', layers, numExperts: 64, topK: 8, tokens: rows.length, ids });
  return traces;
}

/** One serial lane in virtual time: on-demand transfers overtake prefetches that have not started. */
class Lane {
  /** @param {number} slabUs */
  constructor(slabUs) {
    this.slabUs = slabUs;
    this.freeAtUs = 0;
    /** @type {number[]} */
    this.waiting = [];
    /** @type {{ slot: number, atUs: number }[]} */
    this.running = [];
  }

  /** @param {number} nowUs */
  advance(nowUs) {
    while (this.waiting.length > 0 && this.freeAtUs < nowUs) {
      this.freeAtUs += this.slabUs;
      this.running.push({ slot: this.waiting.shift() ?? -1, atUs: this.freeAtUs });
    }
    const done = this.running.filter(({ atUs }) => atUs <= nowUs).map(({ slot }) => slot);
    this.running = this.running.filter(({ atUs }) => atUs > nowUs);
    return done;
  }

  /** @param {number} slot @param {number} nowUs */
  prefetch(slot, nowUs) {
    if (this.waiting.length === 0) this.freeAtUs = Math.max(this.freeAtUs, nowUs);
    this.waiting.push(slot);
  }

  /** @param {number} count @param {number} nowUs */
  onDemand(count, nowUs) {
    this.freeAtUs = Math.max(this.freeAtUs, nowUs) + count * this.slabUs;
  }
}

/** @type {(trace: Trace, setup: Setup) => { planner: Planner, lane: Lane }} */
function build(trace, { policy, prefetch, eviction, share, tuned }) {
  const { layers, numExperts } = trace;
  const expertBytes = 10e6;
  const shape = { units: 4, tpDegree: 4, expertBytes };
  const rates = { gpuBandwidthGBs: 960, gpuGflops: 60e3, unitBandwidthGBs: 51.2, unitGflops: 1e3 };
  const costs = new CostModel(
    profileFromRates({
      ...rates,
      ...shape,
      flopsPerToken: expertBytes,
      transferBandwidthGBs: 56,
      gpuOverheadUs: 8,
    }),
    shape,
  );
  const slots = Math.round(share * layers * numExperts);
  const cache = new ExpertCache({ layers, numExperts, slots, expertBytes, eviction });
  const prefetcher = tuned
    ? new Prefetcher(cache, costs, new PrefillPredictor(layers, numExperts, tuned), tuned)
    : createPrefetcher(prefetch, layers, cache, costs);
  const slotsPerLayer = Math.floor(slots / layers);
  const scheduler = createScheduler(policy, { numExperts, ndpGroups: 1, slotsPerLayer });
  const planner = new Planner({ layers, numExperts, scheduler, cache, costs, prefetcher });
  return { planner, lane: new Lane(costs.transferUs) };
}

/** Mean microseconds of a decode layer's experts, hit rate and copies per decode token.
 * @type {(trace: Trace, setup: Setup) => { layerUs: number, hitRate: number, copies: number }} */
function replay(trace, setup) {
  const { planner, lane } = build(trace, setup);
  const { layers, topK, ids } = trace;
  let nowUs = 0;
  let layersUs = 0;
  const step = (/** @type {number} */ first, /** @type {number} */ tokens) => {
    for (let layer = 0; layer < layers; layer++) {
      nowUs += ATTENTION_US;
      const topkIds = new Int32Array(tokens * topK);
      for (let t = 0; t < tokens; t++) {
        const from = ((first + t) * layers + layer) * topK;
        topkIds.set(ids.subarray(from, from + topK), t * topK);
      }
      planner.completeTransfers(lane.advance(nowUs), nowUs);
      const plan = planner.plan(layer, { tokens, topK, topkIds }, nowUs);
      let copies = 0;
      for (let i = 0; i < plan.count; i++) copies += plan.transfers[i] ?? 0;
      if (copies > 0) lane.onDemand(copies, nowUs);
      const requests = planner.prefetch(layer, nowUs);
      for (let i = 0; i < requests.count; i++) lane.prefetch(requests.slots[i] ?? -1, nowUs);
      nowUs += plan.prediction.makespanUs;
      layersUs += plan.prediction.makespanUs;
    }
  };
  step(0, PREFILL_TOKENS);
  planner.cache.resetStats();
  layersUs = 0;
  for (let token = PREFILL_TOKENS; token < trace.tokens; token++) step(token, 1);
  const decoded = trace.tokens - PREFILL_TOKENS;
  const { stats } = planner.cache;
  return {
    layerUs: layersUs / (decoded * layers),
    hitRate: stats.residentActivated / stats.activated,
    copies: (stats.prefetched + stats.misses) / decoded,
  };
}

/** @type {(traces: Trace[], setup: Setup) => { layerUs: number, hitRate: number, copies: number }} */
function mean(traces, setup) {
  const all = traces.map((trace) => replay(trace, setup));
  const of = (/** @type {'layerUs' | 'hitRate' | 'copies'} */ key) =>
    all.reduce((sum, row) => sum + row[key], 0) / all.length;
  return { layerUs: of('layerUs'), hitRate: of('hitRate'), copies: of('copies') };
}

/** @returns {Setup[]} */
function setups() {
  /** @type {Setup[]} */
  const list = [];
  for (const share of [0.125, 0.25, 0.5]) {
    for (const [policy, prefetch] of /** @type {const} */ ([
      ['ndp-only', 'off'],
      ['gpu-on-demand', 'off'],
      ['static-split', 'off'],
      ['balanced', 'off'],
      ['balanced', 'prefill'],
    ])) {
      const evictions = policy === 'gpu-on-demand' ? ['lru', 'lfu', 'score'] : ['score'];
      for (const eviction of evictions) list.push({ policy, prefetch, eviction, share });
    }
  }
  const tried = { policy: 'balanced', prefetch: 'prefill', eviction: 'score', share: 0.25 };
  for (const slowTokens of [64, 128, 256, 512]) list.push({ ...tried, tuned: { slowTokens } });
  for (const fastTokens of [4, 8, 16, 32]) list.push({ ...tried, tuned: { fastTokens } });
  for (const fastShare of [0, 0.2, 0.4, 0.6]) list.push({ ...tried, tuned: { fastShare } });
  for (const noiseActivations of [0, 1, 2, 4]) list.push({ ...tried, tuned: { noiseActivations } });
  for (const margin of [0, 0.1, 0.25, 0.5]) list.push({ ...tried, tuned: { margin } });
  return list;
}

if (!existsSync(path.join(folder, 'gpt-oss-20b'))) {
  console.log('skipped: no shared traces');
} else {
  const traces = readTraces();
  const rows = [];
  for (const name of ['gpt-oss-20b', 'olmoe-1b-7b']) {
    const own = traces.filter((trace) => trace.name === name);
    for (const setup of setups()) rows.push({ trace: name, ...setup, ...mean(own, setup) });
  }
  if (process.argv.includes('--json')) console.log(JSON.stringify({ bench: 'schedule-traces', rows }));
  else {
    for (const row of rows) {
      const what = `${row.policy} ${row.prefetch} ${row.eviction}`.padEnd(30);
      const tuned = row.tuned ? JSON.stringify(row.tuned) : '';
      const rate = `${(100 * row.hitRate).toFixed(1).padStart(5)}% resident`;
      const times = `${row.layerUs.toFixed(1).padStart(6)} us a layer ${row.copies.toFixed(1).padStart(6)} copies a token`;
      console.log(
        `${row.trace.padEnd(12)} ${(100 * row.share).toFixed(1).padStart(5)}% in VRAM ${what} ${rate} ${times} ${tuned}`,
      );
    }
  }
}
