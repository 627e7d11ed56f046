/**
 * The systems that are compared: a policy of src/schedule with what goes with it (prefetch, placement, what VRAM
 * keeps). Read by simulator.ts and the suites. What a paper leaves open is said at its policy.
 */
import { OptionError } from '../errors.js';

export type System = {
  id: string;
  /** What reports call it. */
  title: string;
  policy: string;
  prefetch: string;
  cachePolicy: string;
  /** Units an expert is cut over: all of them, one (whole experts), or what suits the load best. */
  cut: 'all' | 'whole' | 'auto';
  /** What computes beside the GPU: NDP units, the host's CPU, or nothing. */
  beside: 'ndp' | 'cpu' | 'nothing';
  /**
   * What VRAM keeps: 'cache' keeps what was copied until something better comes; 'nothing' drops a copy after its
   * layer; 'popular' holds what an offline profile found popular and drops copies.
   */
  keeps: 'cache' | 'nothing' | 'popular';
  /** Guesses of the next layer's experts: share of them found, none where undefined. 1: known for certain. */
  lookahead?: 'router' | 'certain';
  /** Knows all routing in advance, see oracle.ts; one request only. */
  isOracle?: boolean;
};

const whole = { cut: 'whole', beside: 'ndp', prefetch: 'off', cachePolicy: 'lru' } as const;
const ours = { cut: 'all', beside: 'ndp', keeps: 'cache', policy: 'balanced', cachePolicy: 'score' } as const;

export const SYSTEMS: readonly System[] = [
  {
    id: 'on-demand',
    title: 'MoE-OnDemand',
    policy: 'gpu-on-demand',
    prefetch: 'off',
    cachePolicy: 'lru',
    cut: 'all',
    beside: 'nothing',
    keeps: 'cache',
  },
  // Pre-gated MoE (Hwang et al., ISCA 2024, arXiv 2308.12066). Taken: the next layer's experts are known one layer early, as
  // its retrained gates tell them, and copied meanwhile. Open: which copies VRAM keeps; here the least recently used leave.
  {
    id: 'pre-gated',
    title: 'Pre-gated MoE',
    policy: 'gpu-on-demand',
    prefetch: 'lookahead',
    cachePolicy: 'lru',
    cut: 'all',
    beside: 'nothing',
    keeps: 'cache',
    lookahead: 'certain',
  },
  {
    id: 'fiddler',
    title: 'Fiddler',
    policy: 'fiddler',
    prefetch: 'off',
    cachePolicy: 'lru',
    cut: 'all',
    beside: 'cpu',
    keeps: 'popular',
  },
  { id: 'monde', title: 'MoNDE, all near data', policy: 'ndp-only', keeps: 'nothing', ...whole },
  { id: 'monde-split', title: 'MoNDE, bandwidth split', policy: 'monde', keeps: 'nothing', ...whole },
  { id: 'monde-cached', title: 'MoNDE split with a cache', policy: 'monde', keeps: 'cache', ...whole },
  { id: 'duplex', title: 'Duplex', policy: 'duplex', keeps: 'nothing', ...whole },
  { id: 'tp', title: 'Tensor-parallel experts', ...ours, policy: 'ndp-only', prefetch: 'off' },
  { id: 'tp-balanced', title: '+ balanced scheduling', ...ours, prefetch: 'off' },
  { id: 'tp-prefill', title: '+ prefill prefetch', ...ours, prefetch: 'prefill' },
  { id: 'ours', title: 'Ours', ...ours, cut: 'auto', prefetch: 'lookahead', lookahead: 'router' },
  { id: 'oracle', title: 'Oracle', ...ours, prefetch: 'off', isOracle: true },
];

/** Throws OptionError for an unknown id. */
export function systemById(id: string): System {
  const found = SYSTEMS.find((system) => system.id === id);
  if (found === undefined) {
    throw new OptionError('policy', `one of ${SYSTEMS.map((system) => `"${system.id}"`).join(', ')}`, id);
  }
  return found;
}
