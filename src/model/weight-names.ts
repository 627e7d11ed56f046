/** How families and formats tell under which names a checkpoint keeps its weights. Read by weights.ts. */
import type { WeightRole } from './model-spec.js';

/**
 * A tensor name with `{layer}` and `{expert}` as placeholders. Without `{expert}` a weight of an expert is that
 * expert's block of a stacked tensor [numExperts, rows, cols]. `part` takes the n-th of `parts` equal row blocks,
 * for tensors that hold gate and up behind one another; interleaved, every `parts`-th row from the n-th on, for those
 * that hold them row by row; transposed, the n-th of `parts` column blocks of a tensor [cols, parts * rows].
 */
export type WeightName =
  | string
  | { tensor: string; part: number; parts: number; interleaved?: boolean; transposed?: boolean };

/** All names a weight may have; the first that the checkpoint holds is taken. */
export type WeightNames = Partial<Record<WeightRole, readonly WeightName[]>>;
