/** How families and formats tell under which names a checkpoint keeps its weights. Read by weights.ts. */
import type { Transform, WeightRole } from './model-spec.js';

/**
 * A tensor name with `{layer}` and `{expert}` as placeholders. Without `{expert}` a weight of an expert is that
 * expert's block of a stacked tensor [numExperts, rows, cols]. `part` takes the n-th of `parts` equal row blocks,
 * for tensors that hold gate and up behind one another; interleaved, every `parts`-th row from the n-th on, for those
 * that hold them row by row; transposed, the n-th of `parts` column blocks of a tensor [cols, parts * rows]. `transform`
 * changes a vector's values. `holds` names the roles whose rows the tensor has behind one another; `byHead`, each (key or
 * query) head's rows of all of them lie together.
 */
export type WeightName =
  | string
  | { tensor: string; part: number; parts: number; interleaved?: boolean; transposed?: boolean }
  | { tensor: string; transform: Transform }
  | { tensor: string; holds: readonly WeightRole[]; byHead?: boolean };

/** All names a weight may have; the first that the checkpoint holds is taken. */
export type WeightNames = Partial<Record<WeightRole, readonly WeightName[]>>;
