/**
 * What an engine did since it was loaded and in the last seconds, for those who watch it: sums of step costs, tokens by
 * expert, the lanes' spans of a few steps. Fed by engine.ts after each step; its snapshot is model.stats(). Requests
 * keep their own books (accounting.ts).
 */
import type { LayerRouting } from '../device/device.js';
import type { TraceSpan } from '../trace/chrome.js';
import { addCosts, deviceStats, noCosts, type StepCosts } from './accounting.js';
import type { EngineStats, StepTimeline, StepTotals } from './stats.js';

/** The recent past is kept in this many pieces of this length. */
const PIECES = 10;
const PIECE_US = 500_000;
/** Steps whose spans are recorded after somebody asked for a timeline. */
const TIMELINE_STEPS = 6;

/** A step that was computed. */
export type ObservedStep = {
  startUs: number;
  endUs: number;
  sequences: number;
  /** Tokens of prompts, and tokens generated. */
  promptTokens: number;
  generatedTokens: number;
  costs: StepCosts;
};

type Sums = Omit<ObservedStep, 'startUs' | 'endUs'>;

export class Telemetry {
  readonly #moeLayers: readonly number[];
  readonly #numExperts: number;
  readonly #units: number;
  readonly #hasGpu: boolean;
  readonly #total: Sums;
  readonly #startUs: number;
  /** By number of the piece since the clock's start. */
  readonly #recent = new Map<number, Sums>();
  readonly #expertTokens: Float64Array;
  readonly #batchSizes: number[] = [];
  #timeline: StepTimeline[] = [];
  #timelineSteps = 0;

  constructor(
    moeLayers: readonly number[],
    numExperts: number,
    units: number,
    hasGpu: boolean,
    nowUs: number,
  ) {
    this.#moeLayers = moeLayers;
    this.#numExperts = numExperts;
    this.#units = units;
    this.#hasGpu = hasGpu;
    this.#startUs = nowUs;
    this.#total = noSums(units);
    this.#expertTokens = new Float64Array(moeLayers.length * numExperts);
  }

  /** Whether the spans of the next step are wanted. */
  get wantsSpans(): boolean {
    return this.#timelineSteps > 0;
  }

  /** `routing` gives each MoE layer's routing of the step. */
  add(step: ObservedStep, routing: (layer: number) => LayerRouting): void {
    const piece = Math.floor(step.endUs / PIECE_US);
    let sums = this.#recent.get(piece);
    if (sums === undefined) {
      sums = noSums(this.#units);
      this.#recent.set(piece, sums);
      this.#forget(piece);
    }
    for (const target of [this.#total, sums]) addSums(target, step);
    this.#batchSizes[step.sequences] = (this.#batchSizes[step.sequences] ?? 0) + 1;
    this.#moeLayers.forEach((layer, index) => {
      const { topkIds, tokens, topK } = routing(layer);
      const base = index * this.#numExperts;
      for (let at = 0; at < tokens * topK; at++) {
        const cell = base + (topkIds[at] ?? 0);
        this.#expertTokens[cell] = (this.#expertTokens[cell] ?? 0) + 1;
      }
    });
  }

  /** The spans of one step, where wantsSpans held. */
  addSpans(step: Omit<StepTimeline, 'spans'>, spans: TraceSpan[]): void {
    this.#timelineSteps--;
    this.#timeline.push({ ...step, spans });
    if (this.#timeline.length > TIMELINE_STEPS) this.#timeline.shift();
  }

  /** `timeline`: gives the spans recorded last and records those of the next steps. */
  snapshot(nowUs: number, timeline: boolean): Omit<EngineStats, 'requests' | 'kvBlocks' | 'residents'> {
    const piece = Math.floor(nowUs / PIECE_US);
    this.#forget(piece);
    const recent = noSums(this.#units);
    for (const sums of this.#recent.values()) addSums(recent, sums);
    const windowStartUs = Math.max(this.#startUs, (piece - PIECES + 1) * PIECE_US);
    if (timeline) this.#timelineSteps = TIMELINE_STEPS;
    return {
      upMs: (nowUs - this.#startUs) / 1e3,
      total: this.#totals(this.#total),
      recent: { windowMs: (nowUs - windowStartUs) / 1e3, ...this.#totals(recent) },
      batchSizes: Array.from(this.#batchSizes, (count) => count ?? 0),
      moeLayers: [...this.#moeLayers],
      numExperts: this.#numExperts,
      expertTokens: this.#expertTokens.slice(),
      timeline: timeline ? this.#timeline : [],
    };
  }

  #totals({ sequences, promptTokens, generatedTokens, costs }: Sums): StepTotals {
    const devices = deviceStats(costs, this.#hasGpu);
    return { sequences, promptTokens, generatedTokens, devices, experts: { ...costs.experts } };
  }

  #forget(now: number): void {
    for (const piece of this.#recent.keys()) if (piece <= now - PIECES) this.#recent.delete(piece);
  }
}

function noSums(units: number): Sums {
  return { sequences: 0, promptTokens: 0, generatedTokens: 0, costs: noCosts(units) };
}

function addSums(sum: Sums, step: Sums): void {
  sum.sequences += step.sequences;
  sum.promptTokens += step.promptTokens;
  sum.generatedTokens += step.generatedTokens;
  addCosts(sum.costs, step.costs);
}
