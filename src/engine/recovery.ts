/**
 * What becomes of a model whose GPU fails while it computes: the device starts again without it, and every sequence is
 * computed anew from its tokens, so that no text is lost. Made by load.ts, called by the engine between two steps.
 */
import { GpuError } from '../errors.js';
import type { EngineParts } from './engine.js';
import type { Forward } from './forward.js';

/** `restart` brings the device back with weights and an empty KV cache; what it throws ends all requests. */
export function gpuRecovery(
  forward: Forward,
  restart: (failure: GpuError) => void,
): NonNullable<EngineParts['recover']> {
  let hasGpu = true;
  return (error, batcher, engine) => {
    if (!(error instanceof GpuError) || !hasGpu) return false;
    hasGpu = false;
    try {
      restart(error);
    } catch (worse) {
      engine.failAll(worse);
      return true;
    }
    forward.planner = undefined;
    batcher.recomputeAll();
    return true;
  };
}
