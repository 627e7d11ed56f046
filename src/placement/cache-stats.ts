/**
 * Counters of the expert cache: what each request's result and the benchmarks report. Written by ExpertCache,
 * read by the engine through snapshots; no logic beyond starting at zero.
 */

/** Counters since the last resetStats. */
export type CacheStats = {
  /** (layer, expert) uses by any token of a step. */
  activated: number;
  onGpu: number;
  onNdp: number;
  /** GPU uses of a slab that was resident or arriving, and GPU uses that had to copy it on demand. */
  hits: number;
  misses: number;
  /** Uses that found the slab resident or arriving, whichever side computed them. */
  residentActivated: number;
  /** Prefetches started, and those of them that a GPU use followed before eviction. */
  prefetched: number;
  prefetchUsed: number;
  evictions: number;
  /** Uses in layers that a lookahead had guessed, and those of them that were among its guesses. */
  guessable: number;
  guessed: number;
  /** Bytes of on-demand transfers and prefetches. */
  bytesMoved: number;
};

export function emptyStats(): CacheStats {
  return {
    activated: 0,
    onGpu: 0,
    onNdp: 0,
    hits: 0,
    misses: 0,
    residentActivated: 0,
    prefetched: 0,
    prefetchUsed: 0,
    evictions: 0,
    guessable: 0,
    guessed: 0,
    bytesMoved: 0,
  };
}
