/**
 * The expert in VRAM with the lowest score, found without looking at every slot: the lowest of each layer is kept, and
 * found anew only where the layer changed. Used by ExpertCache for prefetches; holds no state of the slots itself.
 */

const NONE = -1;

export class LayerMinima {
  private readonly layers: number;
  /** [layers] slot with the layer's lowest score, NONE where the layer has none to give up. */
  private readonly slots: Int32Array;
  private readonly lowest: Float64Array;
  /** [layers] 1: to be found anew. */
  private readonly stale: Uint8Array;
  private scores: Float64Array | undefined;

  constructor(
    layers: number,
    private readonly numExperts: number,
    /** [layers * numExperts] slot or -1. */
    private readonly slotOfKey: Int32Array,
    private readonly isEvictable: (slot: number) => boolean,
  ) {
    this.layers = layers;
    this.slots = new Int32Array(layers).fill(NONE);
    this.lowest = new Float64Array(layers);
    this.stale = new Uint8Array(layers).fill(1);
  }

  /** Slots or scores of a layer are others now. */
  touch(layer: number): void {
    this.stale[layer] = 1;
  }

  /** As touch, of an expert's layer; -1 is none. */
  touchKey(key: number): void {
    if (key >= 0) this.stale[Math.floor(key / this.numExperts)] = 1;
  }

  /** Of equal scores the lower slot; NONE where nothing can be given up. `scores`: [layers * numExperts]. */
  slot(scores: Float64Array): number {
    if (scores !== this.scores) this.stale.fill(1);
    this.scores = scores;
    let best = NONE;
    let lowest = Number.POSITIVE_INFINITY;
    for (let layer = 0; layer < this.layers; layer++) {
      if (this.stale[layer] === 1) this.refresh(layer, scores);
      const slot = this.slots[layer] as number;
      const score = this.lowest[layer] as number;
      if (slot === NONE || score > lowest || (score === lowest && slot > best)) continue;
      lowest = score;
      best = slot;
    }
    return best;
  }

  private refresh(layer: number, scores: Float64Array): void {
    const { slotOfKey } = this;
    let best = NONE;
    let lowest = Number.POSITIVE_INFINITY;
    const end = (layer + 1) * this.numExperts;
    for (let key = end - this.numExperts; key < end; key++) {
      const slot = slotOfKey[key] as number;
      if (slot === NONE) continue;
      const score = scores[key] as number;
      if (score > lowest || (score === lowest && slot > best) || !this.isEvictable(slot)) continue;
      lowest = score;
      best = slot;
    }
    this.slots[layer] = best;
    this.lowest[layer] = lowest;
    this.stale[layer] = 0;
  }
}
