/**
 * A grammar as a graph of states with byte edges, empty edges and calls of rules (a recursive transition network).
 * Compiled once per grammar, walked by automaton.ts. Refuses rules that call themselves without a byte in between and
 * grammars without any finite text.
 */
import { type Expression, type Grammar, grammarError, MAX_DEPTH, specialBytes } from './expression.js';
import { type ByteRange, utf8Sequences } from './utf8-ranges.js';

/** Most states of one grammar. */
const MAX_STATES = 200_000;

type ByteEdge = { first: number; last: number; to: number };
type Call = { rule: number; to: number };

export type State = {
  bytes: ByteEdge[];
  empty: number[];
  calls: Call[];
  rule: number;
  /** Rules that must be entered, one within the other, to reach the end of this state's rule; Infinity: no end. */
  need: number;
  /** A state that allows the same tokens: both are further than any token from the end of a repetition. */
  alias: number;
};

type Rule = { start: number; end: number; isFlat: boolean };

export class Graph {
  readonly states: State[] = [];
  readonly rules: Rule[] = [];
  #ids = new Map<string, number>();
  #sequences = new Map<Expression, readonly ByteRange[][]>();
  #maxTokenBytes: number;

  /** `place` names the option in errors. Throws OptionError. */
  constructor(grammar: Grammar, maxTokenBytes: number, place: string) {
    this.#maxTokenBytes = maxTokenBytes;
    const bodies = [grammar.root, ...grammar.rules.values()];
    for (const [index, name] of [...grammar.rules.keys()].entries()) this.#ids.set(name, index + 1);
    for (const [id, body] of bodies.entries()) {
      const start = this.#state(id);
      const end = this.#state(id);
      this.rules.push({ start, end, isFlat: true });
      this.#build(body, start, end, place);
    }
    for (const { calls, rule } of this.states) {
      const own = this.rules[rule];
      if (calls.length > 0 && own !== undefined) own.isFlat = false;
    }
    refuseLeftRecursion(this, place);
    findNeeds(this);
    if (this.at(this.rules[0]?.start ?? 0).need > MAX_DEPTH)
      throw grammarError(place, `something that a text nested at most ${MAX_DEPTH} deep can fulfil`, 'none');
  }

  at(state: number): State {
    const found = this.states[state];
    if (found === undefined) throw new RangeError(`no grammar state ${state}`);
    return found;
  }

  #state(rule: number): number {
    const id = this.states.length;
    this.states.push({ bytes: [], empty: [], calls: [], rule, need: Infinity, alias: id });
    return id;
  }

  #build(expression: Expression, from: number, to: number, place: string): void {
    if (this.states.length > MAX_STATES)
      throw grammarError(
        place,
        `a grammar of at most ${MAX_STATES} states`,
        'more',
        'Lower counts and lengths.',
      );
    const { rule } = this.at(from);
    switch (expression.kind) {
      case 'chars':
        for (const bytes of this.#byteSequences(expression)) this.#chain(bytes, from, to);
        break;
      case 'text':
        this.#chain(single(new TextEncoder().encode(expression.text)), from, to);
        break;
      case 'special':
        this.#chain(single(specialBytes(expression.text)), from, to);
        break;
      case 'sequence':
        this.#sequence(expression.parts, from, to, place);
        break;
      case 'choice':
        for (const option of expression.options) this.#build(option, from, to, place);
        break;
      case 'repeat':
        this.#repeat(expression, from, to, place);
        break;
      case 'rule':
        this.at(from).calls.push({ rule: this.#ids.get(expression.name) ?? rule, to });
    }
  }

  /** Repetitions come here once per copy. */
  #byteSequences(expression: Expression & { kind: 'chars' }): readonly ByteRange[][] {
    let sequences = this.#sequences.get(expression);
    if (sequences === undefined) {
      sequences = expression.ranges.flatMap(utf8Sequences);
      this.#sequences.set(expression, sequences);
    }
    return sequences;
  }

  #chain(bytes: readonly ByteRange[], from: number, to: number): void {
    if (bytes.length === 0) this.at(from).empty.push(to);
    let at = from;
    for (const [index, [first, last]] of bytes.entries()) {
      const next = index === bytes.length - 1 ? to : this.#state(this.at(from).rule);
      this.at(at).bytes.push({ first, last, to: next });
      at = next;
    }
  }

  #sequence(parts: readonly Expression[], from: number, to: number, place: string): void {
    if (parts.length === 0) this.at(from).empty.push(to);
    let at = from;
    for (const [index, part] of parts.entries()) {
      const next = index === parts.length - 1 ? to : this.#state(this.at(from).rule);
      this.#build(part, at, next, place);
      at = next;
    }
  }

  #repeat(expression: Expression & { kind: 'repeat' }, from: number, to: number, place: string): void {
    const { part, min, max, isChar } = expression;
    const { rule } = this.at(from);
    // A state of its own: edges back to it must not let other alternatives of `from` in.
    const counted = [this.#state(rule)];
    this.at(from).empty.push(counted[0] ?? from);
    const copies = max === Infinity ? min : max;
    for (let count = 0; count < copies; count++) {
      const next = this.#state(rule);
      this.#build(part, counted[count] ?? from, next, place);
      counted.push(next);
    }
    const last = counted.at(-1) ?? from;
    if (max === Infinity) {
      const loop = this.#state(rule);
      this.#build(part, last, loop, place);
      this.at(loop).empty.push(last);
    }
    for (const [count, state] of counted.entries()) {
      if (count >= min) this.at(state).empty.push(to);
      // A token has at most as many characters as bytes.
      if (isChar && min - count >= this.#maxTokenBytes) this.at(state).alias = counted[0] ?? state;
      if (isChar && count >= min && copies - count >= this.#maxTokenBytes)
        this.at(state).alias = counted[min] ?? state;
    }
  }
}

/** Each byte as a range of its own. */
function single(bytes: Uint8Array): ByteRange[] {
  return Array.from(bytes, (byte) => [byte, byte] as const);
}

/** Least fixed point of: an edge needs what its target needs, a call one more than its rule and what follows it. */
function findNeeds(graph: Graph): void {
  for (const { end } of graph.rules) graph.at(end).need = 0;
  const { states, rules } = graph;
  for (let changed = true; changed; ) {
    changed = false;
    // Edges mostly lead to later states, so that this order needs few rounds.
    for (let id = states.length - 1; id >= 0; id--) {
      const state = graph.at(id);
      let need = state.need;
      if (need === 0) continue;
      for (const { to } of state.bytes) need = Math.min(need, graph.at(to).need);
      for (const to of state.empty) need = Math.min(need, graph.at(to).need);
      for (const { rule, to } of state.calls) {
        const inside = 1 + graph.at(rules[rule]?.start ?? 0).need;
        need = Math.min(need, Math.max(inside, graph.at(to).need));
      }
      if (need < state.need) changed = true;
      state.need = need;
    }
  }
}

/** States that are reached from `start` without a byte; rules in `nullable` are passed. */
function emptyReach(graph: Graph, start: number, nullable: ReadonlySet<number>): Set<number> {
  const reached = new Set([start]);
  for (const id of reached) {
    const { empty, calls } = graph.at(id);
    for (const to of empty) reached.add(to);
    for (const { rule, to } of calls) if (nullable.has(rule)) reached.add(to);
  }
  return reached;
}

function refuseLeftRecursion(graph: Graph, place: string): void {
  const nullable = new Set<number>();
  for (let size = -1; size < nullable.size; ) {
    size = nullable.size;
    for (const [id, { start, end }] of graph.rules.entries())
      if (emptyReach(graph, start, nullable).has(end)) nullable.add(id);
  }
  const firstCalls = graph.rules.map(({ start }) =>
    [...emptyReach(graph, start, nullable)].flatMap((id) => graph.at(id).calls.map(({ rule }) => rule)),
  );
  for (const id of graph.rules.keys()) {
    const reached = new Set(firstCalls[id]);
    for (const next of reached) for (const call of firstCalls[next] ?? []) reached.add(call);
    if (reached.has(id))
      throw grammarError(place, 'references that do not lead back to themselves at once', 'a loop');
  }
}
