/**
 * Records which experts each computed token of one request was routed to, for workloads of the simulator
 * (--record-routing). Fed by engine.ts after each step; a token that is computed anew after preemption is recorded
 * once.
 */
import type { LayerRouting } from '../device/device.js';
import type { RoutingRecord } from './result.js';
import type { Sequence } from './sequence.js';

/** Fills the places of a layer that chooses fewer experts than others. */
const NO_EXPERT = 0xffff;

export class RoutingRecorder {
  #layers: readonly number[];
  #numExperts: number;
  #topK: number;
  #sequence: Sequence;
  #ids: Uint16Array;
  #tokens = 0;

  constructor(sequence: Sequence, layers: readonly number[], numExperts: number, topK: number) {
    this.#sequence = sequence;
    this.#layers = layers;
    this.#numExperts = numExperts;
    this.#topK = topK;
    this.#ids = new Uint16Array(0);
  }

  /** `count` tokens from position `first` on were rows [firstRow, firstRow + count) of the step. */
  add(first: number, count: number, firstRow: number, routingOf: (layer: number) => LayerRouting): void {
    const rowLength = this.#layers.length * this.#topK;
    this.#reserve((first + count) * rowLength);
    const skip = Math.max(0, this.#tokens - first);
    this.#layers.forEach((layer, index) => {
      const { topkIds, topK } = routingOf(layer);
      for (let i = skip; i < count; i++) {
        const row = topkIds.subarray((firstRow + i) * topK, (firstRow + i + 1) * topK);
        this.#ids.set(row, (first + i) * rowLength + index * this.#topK);
      }
    });
    this.#tokens = Math.max(this.#tokens, first + count);
  }

  record(): RoutingRecord {
    const rowLength = this.#layers.length * this.#topK;
    return {
      numExperts: this.#numExperts,
      topK: this.#topK,
      layers: [...this.#layers],
      tokens: this.#tokens,
      promptTokens: Math.min(this.#tokens, this.#sequence.promptLength),
      ids: this.#ids.slice(0, this.#tokens * rowLength),
    };
  }

  #reserve(length: number): void {
    if (length <= this.#ids.length) return;
    const wider = new Uint16Array(Math.max(length, this.#ids.length * 2)).fill(NO_EXPERT);
    wider.set(this.#ids);
    this.#ids = wider;
  }
}
