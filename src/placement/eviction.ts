/**
 * Which slab leaves VRAM first: lru, lfu, and score (decayed activation rates). Used by ExpertCache through the
 * registry at the end. A rule only ranks (layer, expert) pairs; which slots may be taken at all is the cache's to say.
 */
import { OptionError } from '../errors.js';
import { ActivationRates } from './activation-rates.js';
import type { ActiveExperts } from './residency.js';

export interface Eviction {
  readonly name: string;
  /** [layers * numExperts] the resident pair with the lowest priority leaves first. */
  readonly priorities: Float64Array;
  /** Takes note of a layer's routing of `tokens` tokens, resident or not. */
  observe(work: ActiveExperts, tokens: number): void;
  /** Takes note of a slab that came into VRAM. */
  admit(key: number): void;
}

export type EvictionEntry = {
  name: string;
  description: string;
  create(layers: number, numExperts: number): Eviction;
};

/** Least recently used (or admitted). */
class LruEviction implements Eviction {
  readonly name = 'lru';
  readonly priorities: Float64Array;
  private tick = 0;

  constructor(
    layers: number,
    private readonly numExperts: number,
  ) {
    this.priorities = new Float64Array(layers * numExperts);
  }

  observe(work: ActiveExperts): void {
    this.tick++;
    const base = work.layer * this.numExperts;
    for (let i = 0; i < work.count; i++) this.priorities[base + (work.expertIds[i] as number)] = this.tick;
  }

  admit(key: number): void {
    this.priorities[key] = ++this.tick;
  }
}

/** Least often used by a step since loading; counts survive eviction. */
class LfuEviction implements Eviction {
  readonly name = 'lfu';
  readonly priorities: Float64Array;

  constructor(
    layers: number,
    private readonly numExperts: number,
  ) {
    this.priorities = new Float64Array(layers * numExperts);
  }

  observe(work: ActiveExperts): void {
    const base = work.layer * this.numExperts;
    for (let i = 0; i < work.count; i++) {
      const key = base + (work.expertIds[i] as number);
      this.priorities[key] = (this.priorities[key] as number) + 1;
    }
  }

  admit(): void {}
}

/** Lowest decayed activation rate: how often tokens choose the expert, recent ones weighing more. */
class ScoreEviction implements Eviction {
  readonly name = 'score';
  readonly priorities: Float64Array;
  private readonly activations: ActivationRates;

  constructor(layers: number, numExperts: number) {
    this.activations = new ActivationRates(layers, numExperts);
    this.priorities = this.activations.rates;
  }

  observe(work: ActiveExperts, tokens: number): void {
    this.activations.observe(work, tokens);
  }

  admit(): void {}
}

const evictions = new Map<string, EvictionEntry>();

/** Adds a rule; a name that is taken is refused with OptionError. */
export function registerEviction(entry: EvictionEntry): void {
  if (evictions.has(entry.name)) throw new OptionError('cachePolicy', 'a new name', entry.name);
  evictions.set(entry.name, entry);
}

registerEviction({
  name: 'lru',
  description: 'least recently used leaves first',
  create: (layers, numExperts) => new LruEviction(layers, numExperts),
});
registerEviction({
  name: 'lfu',
  description: 'least frequently used leaves first',
  create: (layers, numExperts) => new LfuEviction(layers, numExperts),
});
registerEviction({
  name: 'score',
  description: 'lowest decayed activation rate leaves first',
  create: (layers, numExperts) => new ScoreEviction(layers, numExperts),
});

/** Every rule, in order of registration. */
export function evictionEntries(): readonly EvictionEntry[] {
  return [...evictions.values()];
}

/** Throws OptionError for an unknown name. */
export function createEviction(name: string, layers: number, numExperts: number): Eviction {
  const entry = evictions.get(name);
  if (entry === undefined) {
    const names = [...evictions.keys()].map((known) => `"${known}"`).join(', ');
    throw new OptionError('cachePolicy', `one of ${names}`, name);
  }
  return entry.create(layers, numExperts);
}
