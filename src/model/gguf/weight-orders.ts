/**
 * Rows and columns that GGUF files have in another order than the Hub's checkpoints: pairs of rotated heads side by side,
 * value heads of delta nets in turn. Called by convert-weights.ts.
 */
import type { ModelSpec, WeightRole, WeightSource } from '../model-spec.js';
import type { GatedDeltaSpec } from '../recurrent-spec.js';
import type { ValueOrder } from './value-reader.js';

const ROTATED: readonly WeightRole[] = ['query', 'key', 'queryBias', 'keyBias'];

export class WeightOrders {
  readonly #spec: ModelSpec;
  readonly #interleaves: boolean;
  readonly #valueHeads: GatedDeltaSpec['valueHeadOrder'] | undefined;

  /** `interleaves`: the two halves of a rotated head are to alternate. */
  constructor(
    spec: ModelSpec,
    interleaves: boolean,
    valueHeads: GatedDeltaSpec['valueHeadOrder'] | undefined,
  ) {
    this.#spec = spec;
    this.#interleaves = interleaves;
    this.#valueHeads = valueHeads;
  }

  of({ role, layer }: WeightSource): ValueOrder {
    const { recurrent, attention } = this.#spec.layers[layer] ?? {};
    if (recurrent?.kind === 'gated-delta') {
      const isOther = this.#valueHeads !== undefined && this.#valueHeads !== recurrent.valueHeadOrder;
      return isOther ? inTurn(role, recurrent) : {};
    }
    if (!this.#interleaves || !ROTATED.includes(role)) return {};
    const headDim = attention?.headDim ?? 0;
    const half = headDim / 2;
    return {
      row: (row) => {
        const [head, place] = [Math.floor(row / headDim), row % headDim];
        return head * headDim + (place % 2) * half + Math.floor(place / 2);
      },
    };
  }
}

/** The first value head of every key head, then the second of every key head, and so on. */
function inTurn(role: WeightRole, delta: GatedDeltaSpec): ValueOrder {
  const { numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim } = delta;
  const each = numValueHeads / numKeyHeads;
  const head = (place: number) => (place % numKeyHeads) * each + Math.floor(place / numKeyHeads);
  const ofHeads = (width: number, before: number) => (place: number) => {
    if (place < before) return place;
    const [at, within] = [Math.floor((place - before) / width), (place - before) % width];
    return before + head(at) * width + within;
  };
  switch (role) {
    case 'value':
    case 'outputGate':
      return { row: ofHeads(valueHeadDim, 0) };
    case 'convKernel':
      return { row: ofHeads(valueHeadDim, 2 * numKeyHeads * keyHeadDim) };
    case 'deltaBeta':
    case 'deltaDecay':
    case 'deltaDecayRate':
    case 'deltaDecayBias':
      return { row: head };
    case 'output':
      return { col: ofHeads(valueHeadDim, 0) };
    default:
      return {};
  }
}
