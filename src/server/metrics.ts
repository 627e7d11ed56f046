/**
 * The server's figures in Prometheus' form (GET /metrics): requests as app.ts and generate.ts report them, and the
 * engine's own figures, asked for at each scrape. Every server has a registry of its own.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { NearmoeError } from '../errors.js';
import type { EngineStats, GenerateResult } from '../llm.js';
import type { Admission } from './admission.js';
import type { ServableModel } from './answers.js';
import { ApiError } from './api-error.js';
import { BatchSizes } from './batch-sizes.js';
import { busyShares, rates } from './rates.js';

export type Endpoint = 'chat' | 'completions';

/** How a generating request went. */
export type Outcome = {
  results: readonly GenerateResult[];
  /** Why it did not complete. */
  error: unknown;
  /** From the request's arrival: to its place, to its first part, to its end. */
  queueMs: number | undefined;
  firstPartMs: number | undefined;
  totalMs: number;
};

const TIME_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];
const TOKEN_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

export class Metrics {
  readonly registry = new Registry();
  readonly #model: ServableModel;
  readonly #requests = this.#counter('requests', 'Generating requests by how they ended', [
    'endpoint',
    'outcome',
  ]);
  readonly #answers = this.#counter('http_responses', 'Responses by route and status', ['route', 'status']);
  readonly #tokens = this.#counter('tokens', 'Tokens of completed requests', ['kind']);
  readonly #firstToken = this.#seconds('time_to_first_token', 'From arrival to the first text', TIME_BUCKETS);
  readonly #perToken = this.#seconds('time_per_output_token', 'Between tokens of an answer', TOKEN_BUCKETS);
  readonly #queue = this.#seconds('queue', 'From arrival to a place', TIME_BUCKETS);
  readonly #duration = this.#seconds('request_duration', 'From arrival to the end', TIME_BUCKETS);
  readonly #engine: EngineMetrics;

  /** `processMetrics`: also what prom-client tells of the process; once per process. */
  constructor(model: ServableModel, admission: Admission, processMetrics: boolean) {
    this.#model = model;
    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({
        name: `nearmoe_${name}`,
        help,
        registers: [this.registry],
        collect() {
          this.set(value());
        },
      });
    gauge('places_taken', 'Answers that are computed', () => admission.running);
    gauge('queue_length', 'Requests that wait for a place', () => admission.queued);
    this.#engine = new EngineMetrics(this.registry, model);
    if (processMetrics) collectDefaultMetrics({ register: this.registry });
  }

  answered(route: string, status: number): void {
    this.#answers.inc({ route, status });
  }

  ended(endpoint: Endpoint, { results, error, queueMs, firstPartMs, totalMs }: Outcome): void {
    this.#requests.inc({ endpoint, outcome: outcomeOf(error) });
    if (queueMs !== undefined) this.#queue.observe(queueMs / 1e3);
    if (firstPartMs !== undefined) this.#firstToken.observe(firstPartMs / 1e3);
    this.#duration.observe(totalMs / 1e3);
    for (const { usage, timings } of results) {
      this.#tokens.inc({ kind: 'prompt' }, usage.promptTokens);
      this.#tokens.inc({ kind: 'cached' }, usage.cachedPromptTokens);
      this.#tokens.inc({ kind: 'completion' }, usage.completionTokens);
      const gaps = usage.completionTokens - 1;
      if (gaps > 0) this.#perToken.observe(timings.decodeMs / gaps / 1e3);
    }
  }

  /** The text that Prometheus reads. An engine that is gone is told, not thrown. */
  async text(): Promise<string> {
    let stats: EngineStats | undefined;
    try {
      stats = await this.#model.stats();
    } catch (error) {
      if (!(error instanceof NearmoeError)) throw error;
    }
    this.#engine.set(stats);
    return this.registry.metrics();
  }

  #counter<Label extends string>(name: string, help: string, labelNames: Label[]): Counter<Label> {
    return new Counter({ name: `nearmoe_${name}_total`, help, labelNames, registers: [this.registry] });
  }

  #seconds(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name: `nearmoe_${name}_seconds`, help, buckets, registers: [this.registry] });
  }
}

/** What the engine counts; counters take over its sums as they are. */
class EngineMetrics {
  readonly #registry: Registry;
  readonly #model: ServableModel;
  readonly #sums = new Map<string, Counter<'device'>>();
  readonly #gauges = new Map<string, Gauge<'device'>>();
  readonly #batchSizes: BatchSizes;

  constructor(registry: Registry, model: ServableModel) {
    this.#registry = registry;
    this.#model = model;
    this.#batchSizes = new BatchSizes(registry);
  }

  set(stats: EngineStats | undefined): void {
    this.#gauge('engine_up', 'Whether the engine answers', stats ? 1 : 0);
    if (stats === undefined) return;
    const { total, requests, kvBlocks } = stats;
    this.#gauge('engine_running', 'Sequences that are computed', requests.running);
    this.#gauge('engine_waiting', 'Sequences that wait inside the engine', requests.waiting);
    this.#gauge('kv_blocks_free_ratio', 'Share of free KV blocks', kvBlocks.free / kvBlocks.total);
    this.#sum('steps', 'Steps', total.devices.steps);
    this.#sum('prompt_tokens_computed', 'Tokens of prompts', total.promptTokens);
    this.#sum('tokens_generated', 'Tokens generated', total.generatedTokens);
    this.#sum('expert_hits', 'GPU uses of a resident expert', total.experts.hits);
    this.#sum('expert_misses', 'GPU uses that had to wait for a transfer', total.experts.misses);
    this.#sum('experts_prefetched', 'Experts copied ahead of need', total.experts.prefetched);
    this.#sum('prefetched_experts_used', 'Of these, used before eviction', total.experts.prefetchUsed);
    this.#sum('expert_evictions', 'Experts evicted from VRAM', total.experts.evictions);
    this.#sum('expert_uses_gpu', '(layer, expert) uses on the GPU lane', total.experts.onGpu);
    this.#sum('expert_uses_ndp', '(layer, expert) uses on the units', total.experts.onNdp);
    this.#sum('transferred_bytes', 'Bytes of weights moved to VRAM', total.experts.bytesMoved);
    this.#sum('step_seconds', 'Wall time of steps', total.devices.stepsMs / 1e3);
    this.#setDevices(stats);
    this.#setRates(stats);
    this.#batchSizes.steps = stats.batchSizes;
  }

  #setDevices({ total }: EngineStats): void {
    for (const [device, busyMs] of devicesOf(total.devices, this.#model.info.gpu !== 'off'))
      this.#sum('device_busy_seconds', 'Time a device worked', busyMs / 1e3, device);
  }

  #setRates(stats: EngineStats): void {
    const now = rates(stats, this.#model.info);
    this.#gauge('expert_hit_ratio', 'Hits over hits and misses, last seconds', now.hitRate);
    this.#gauge('transfer_gigabytes_per_second', 'Weights moved to VRAM, last seconds', now.transferGBs);
    this.#gauge(
      'weight_read_gigabytes_per_second',
      'Weights read from host memory while steps run',
      now.weightReadGBs,
    );
    this.#gauge('decode_tokens_per_second', 'Tokens generated, last seconds', now.tokensPerSecond);
    for (const [device, share] of Object.entries(busyShares(stats, this.#model.info)))
      this.#gauge('device_busy_ratio', 'Share of the last seconds that a device worked', share, device);
  }

  #gauge(name: string, help: string, value: number, device?: string): void {
    let metric = this.#gauges.get(name);
    if (metric === undefined) {
      const labelNames = device === undefined ? [] : (['device'] as const);
      metric = new Gauge({ name: `nearmoe_${name}`, help, labelNames, registers: [this.#registry] });
      this.#gauges.set(name, metric);
    }
    metric.set(device === undefined ? {} : { device }, value);
  }

  #sum(name: string, help: string, value: number, device?: string): void {
    let metric = this.#sums.get(name);
    if (metric === undefined) {
      const labelNames = device === undefined ? [] : (['device'] as const);
      metric = new Counter({ name: `nearmoe_${name}_total`, help, labelNames, registers: [this.#registry] });
      this.#sums.set(name, metric);
    }
    const labels = device === undefined ? {} : { device };
    metric.remove(labels);
    metric.inc(labels, value);
  }
}

function devicesOf(devices: EngineStats['total']['devices'], hasGpu: boolean): [string, number][] {
  const units = devices.unitBusyMs.map((busyMs, unit): [string, number] => [`unit ${unit}`, busyMs]);
  const lanes: [string, number][] = [
    ['gpu', devices.gpuBusyMs],
    ['transfer', devices.transferBusyMs],
  ];
  return hasGpu ? [...lanes, ...units] : units;
}

function outcomeOf(error: unknown): string {
  if (error === undefined) return 'completed';
  if (!(error instanceof ApiError)) return 'failed';
  if (error.code === 'client_left') return 'cancelled';
  if (error.code === 'request_timeout') return 'timed_out';
  if (error.status === 503 || error.status === 429) return 'refused';
  return error.status < 500 ? 'invalid' : 'failed';
}
