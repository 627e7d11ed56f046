/**
 * Walks a grammar's graph byte by byte: all positions that a text can be at, made deterministic as they are met and
 * kept for the next time. Positions carry the calls they have to return to, so that recursion works, up to MAX_DEPTH
 * calls; a position from which that depth leaves no way to the end is not taken, so that no text runs into a dead end.
 * Used by token-masks.ts and constraint.ts, on one thread.
 */
import { MAX_DEPTH } from './expression.js';
import type { Graph } from './graph.js';

/** A state, and the position to return to at its rule's end. Interned: equal positions are one object. */
type Position = { id: number; state: number; parent: Position | undefined; depth: number };

/** Everything that may come next after some text. */
export type Configuration = {
  positions: readonly Position[];
  /** The text is complete here. */
  isAccepting: boolean;
  /** By byte; undefined: not walked yet, null: no text goes on this way. */
  next: (Configuration | null | undefined)[];
};

/** Configurations kept before all are forgotten; each is about 2.5 KB once walked. */
const MAX_KEPT = 2000;

export class Automaton {
  readonly graph: Graph;
  #positions = new Map<string, Position>();
  #configurations = new Map<string, Configuration>();
  #start: Configuration | undefined;

  constructor(graph: Graph) {
    this.graph = graph;
  }

  /** Before the first byte. */
  get start(): Configuration {
    this.#start ??= this.#closure([this.#position(this.graph.rules[0]?.start ?? 0, undefined)]);
    return this.#start;
  }

  /** Changes when configurations were forgotten: what was derived from them may be forgotten too. */
  generation = 0;

  /** After one more byte; null where no text has it there. */
  step(from: Configuration, byte: number): Configuration | null {
    const known = from.next[byte];
    if (known !== undefined) return known;
    const targets: Position[] = [];
    for (const { state, parent } of from.positions) {
      for (const { first, last, to } of this.graph.at(state).bytes)
        if (byte >= first && byte <= last) targets.push(this.#position(to, parent));
    }
    const next = this.#closure(targets);
    from.next[byte] = next.positions.length > 0 || next.isAccepting ? next : null;
    return from.next[byte] ?? null;
  }

  /** At a rule's states alone, as if nothing called it. */
  local(states: readonly number[]): Configuration {
    return this.#closure(states.map((state) => this.#position(state, undefined)));
  }

  /** Where a position's rule returns to. */
  after(parent: Position): Configuration {
    return this.#closure([parent]);
  }

  /** Forgets what is only kept for speed, when it has grown too large. To be called between texts. */
  trim(): void {
    if (this.#configurations.size < MAX_KEPT) return;
    this.#configurations.clear();
    this.#positions.clear();
    this.#start = undefined;
    this.generation++;
  }

  #position(state: number, parent: Position | undefined): Position {
    const key = `${state}.${parent?.id ?? ''}`;
    let position = this.#positions.get(key);
    if (position === undefined) {
      // Ids are never used twice: positions of before a trim() may still be in use.
      position = { id: this.#nextId++, state, parent, depth: parent === undefined ? 0 : parent.depth + 1 };
      this.#positions.set(key, position);
    }
    return position;
  }
  #nextId = 0;

  /** Follows empty edges, calls and returns; keeps the positions that wait for a byte. */
  #closure(from: readonly Position[]): Configuration {
    const reached = new Set(from.filter((position) => this.#isViable(position)));
    let isAccepting = false;
    for (const position of reached) {
      const { state, parent } = position;
      const { empty, calls, rule } = this.graph.at(state);
      const add = (next: Position) => {
        if (this.#isViable(next)) reached.add(next);
      };
      for (const to of empty) add(this.#position(to, parent));
      for (const call of calls) {
        const back = this.#position(call.to, parent);
        const start = this.graph.rules[call.rule]?.start ?? 0;
        if (this.#isViable(back)) add(this.#position(start, back));
      }
      if (state !== this.graph.rules[rule]?.end) continue;
      if (parent === undefined) isAccepting = true;
      else add(parent);
    }
    const waiting = [...reached].filter(({ state }) => this.graph.at(state).bytes.length > 0);
    return this.#configuration(waiting, isAccepting);
  }

  #isViable({ state, depth }: Position): boolean {
    return depth + this.graph.at(state).need <= MAX_DEPTH;
  }

  #configuration(positions: Position[], isAccepting: boolean): Configuration {
    positions.sort((a, b) => a.id - b.id);
    const key = `${isAccepting ? '+' : ''}${positions.map(({ id }) => id).join()}`;
    let configuration = this.#configurations.get(key);
    if (configuration === undefined) {
      configuration = { positions, isAccepting, next: [] };
      this.#configurations.set(key, configuration);
    }
    return configuration;
  }
}
