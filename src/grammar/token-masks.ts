/**
 * Which tokens may come next in a text under a grammar, as a bit per token. A walk through the vocabulary's tree,
 * done once for each place in the grammar. Where the text is inside of one rule (a JSON string, say), the walk inside
 * of that rule is kept for all who call it, and only tokens that go beyond its end are walked anew (the split into
 * context-independent and dependent tokens is XGrammar's; Dong et al. 2024, arXiv 2411.15100). Used by constraint.ts.
 */
import { PromptError } from '../errors.js';
import type { Automaton, Configuration } from './automaton.js';
import type { Vocabulary } from './vocabulary.js';

/** Bit `id & 31` of word `id >> 5`. */
export type TokenMask = Uint32Array;

/** Tokens inside of a rule, and the nodes at which the rule's end is reached while tokens go on. */
type LocalMask = { mask: TokenMask; exits: readonly number[] };

export class TokenMasks {
  readonly vocabulary: Vocabulary;
  #automaton: Automaton;
  #masks = new Map<Configuration, TokenMask>();
  /** The same by what a mask depends on: places far from the end of a repetition differ in their count alone. */
  #shared = new Map<string, TokenMask>();
  #locals = new Map<string, LocalMask>();
  #generation = 0;
  #walked: (Configuration | null)[] = [];

  constructor(automaton: Automaton, vocabulary: Vocabulary) {
    this.#automaton = automaton;
    this.vocabulary = vocabulary;
  }

  /** Tokens that may follow, end-of-text tokens among them where the text is complete. Not to be written to.
   * Throws PromptError where there is none. */
  maskOf(configuration: Configuration): TokenMask {
    if (this.#generation !== this.#automaton.generation) {
      this.#masks.clear();
      this.#shared.clear();
    }
    this.#generation = this.#automaton.generation;
    const known = this.#masks.get(configuration);
    if (known !== undefined) return known;
    const key = this.#keyOf(configuration);
    let mask = this.#shared.get(key);
    if (mask === undefined) {
      mask = this.#compute(configuration);
      if (configuration.isAccepting) for (const id of this.vocabulary.eosIds) setBit(mask, id);
      if (mask.every((word) => word === 0))
        throw new PromptError(
          'The vocabulary of the model has no token that goes on with the response format',
        );
      this.#shared.set(key, mask);
    }
    this.#masks.set(configuration, mask);
    return mask;
  }

  #keyOf({ isAccepting, positions }: Configuration): string {
    const { graph } = this.#automaton;
    const places = positions.map(({ state, parent }) => `${graph.at(state).alias}.${parent?.id ?? ''}`);
    return `${isAccepting ? '+' : ''}${[...new Set(places)].sort().join()}`;
  }

  #compute(configuration: Configuration): TokenMask {
    const { graph } = this.#automaton;
    const [first] = configuration.positions;
    const mask = this.#empty();
    if (first === undefined) return mask;
    const { parent } = first;
    const rule = graph.rules[graph.at(first.state).rule];
    const isLocal = rule?.isFlat && configuration.positions.every((position) => position.parent === parent);
    if (!isLocal) {
      this.#walk(configuration, 0, mask);
      return mask;
    }
    const local = this.#local(configuration.positions.map(({ state }) => graph.at(state).alias));
    mask.set(local.mask);
    if (parent === undefined) return mask;
    const after = this.#automaton.after(parent);
    for (const node of local.exits) this.#walk(after, node, mask);
    return mask;
  }

  #local(states: readonly number[]): LocalMask {
    const key = [...new Set(states)].sort((a, b) => a - b).join();
    let local = this.#locals.get(key);
    if (local === undefined) {
      const mask = this.#empty();
      const exits: number[] = [];
      this.#walk(this.#automaton.local(states), 0, mask, exits);
      local = { mask, exits };
      this.#locals.set(key, local);
    }
    return local;
  }

  /** Sets the bits of all tokens below `top` that the grammar goes along with from `start` on. */
  #walk(start: Configuration, top: number, mask: TokenMask, exits?: number[]): void {
    const { bytes, depths, ends, firstTokens, tokenIds } = this.vocabulary;
    const end = ends[top] ?? 0;
    const walked = this.#walked;
    walked[depths[top] ?? 0] = start;
    for (let node = top + 1; node < end; ) {
      const depth = depths[node] ?? 0;
      const before = walked[depth - 1];
      const byte = bytes[node] ?? 0;
      // The table first: the call is for what was not walked yet.
      const next = before && (before.next[byte] ?? this.#automaton.step(before, byte));
      if (!next) {
        node = ends[node] ?? end;
        continue;
      }
      walked[depth] = next;
      const lastToken = firstTokens[node + 1] ?? 0;
      for (let token = firstTokens[node] ?? 0; token < lastToken; token++) setBit(mask, tokenIds[token] ?? 0);
      if (exits !== undefined && next.isAccepting && (ends[node] ?? 0) > node + 1) exits.push(node);
      node++;
    }
  }

  #empty(): TokenMask {
    return new Uint32Array(Math.ceil(this.vocabulary.size / 32));
  }
}

function setBit(mask: TokenMask, id: number): void {
  mask[id >> 5] = (mask[id >> 5] ?? 0) | (1 << (id & 31));
}
