/** Which layers of a GGUF file are dense: metadata does not say it, the tensors do. For families that mix both kinds. */
import type { GgufSource } from './family.js';

/** Layers with a feed-forward part but no router. */
export function denseLayers({ tensors, integer }: GgufSource): number[] {
  const layers: number[] = [];
  const count = Math.min(integer('block_count') ?? 0, tensors.count);
  for (let layer = 0; layer < count; layer++) {
    const hasRouter = tensors.has(`blk.${layer}.ffn_gate_inp.weight`);
    if (!hasRouter && tensors.has(`blk.${layer}.ffn_gate.weight`)) layers.push(layer);
  }
  return layers;
}
