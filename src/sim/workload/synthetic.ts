/**
 * Synthetic routing: which experts each token of a request chooses, from a few knobs. Used by the suites; its output
 * is held to the statistics of real models by statistics.ts and test/sim/synthetic.test.ts.
 *
 * Each layer gives each expert a score, the sum of three normal parts: a lasting popularity (skew), one that drifts
 * over some hundred tokens (topic), one that changes from token to token (reuse). A token takes the topK best. The
 * lasting part of the answer correlates with that of the prompt as told.
 */
import type { RoutingRecord } from '../../engine/result.js';
import { OptionError } from '../../errors.js';
import { normals, randomBits } from './random.js';

export type RoutingKnobs = {
  /** Weight of the lasting popularity; the token's own part has weight 1. */
  skew: number;
  /** Cubic share of the lasting part: makes a few experts stand out. */
  tail: number;
  /** Weight of the drifting part, and tokens after which it has forgotten itself (1/e). */
  topic: number;
  topicTokens: number;
  /** Tokens after which the token's own part has forgotten itself (1/e): reuse from one token to the next. */
  reuseTokens: number;
};

export type RoutingShape = { experts: number; topK: number; layers: readonly number[] };

export type SyntheticOptions = {
  shape: RoutingShape;
  knobs: RoutingKnobs;
  promptTokens: number;
  answerTokens: number;
  /** Correlation of the experts' lasting popularity in prompt and answer, 0 to 1. */
  correlation: number;
  seed: number;
};

/** Tokens between updates of the drifting part. */
const TOPIC_STRIDE = 8;

/** Throws OptionError for knobs out of their domain. */
export function syntheticRouting(options: SyntheticOptions): RoutingRecord {
  const { shape, promptTokens, answerTokens } = options;
  check(options);
  const tokens = promptTokens + answerTokens;
  const { experts, topK, layers } = shape;
  const ids = new Uint16Array(tokens * layers.length * topK);
  const normal = normals(randomBits(options.seed));
  const layer = new LayerScores(options, normal);
  const chosen = new Uint16Array(topK);
  for (let index = 0; index < layers.length; index++) {
    layer.restart();
    for (let token = 0; token < tokens; token++) {
      layer.next(token, chosen);
      ids.set(chosen, (token * layers.length + index) * topK);
    }
  }
  return { numExperts: experts, topK, layers: [...layers], tokens, promptTokens, ids };
}

/** The scores of one layer's experts as they change from token to token. */
class LayerScores {
  private readonly lasting: Float64Array;
  private readonly topic: Float64Array;
  private readonly own: Float64Array;
  private readonly base: Float64Array;
  private readonly bestScores: Float64Array;
  private readonly topicKeeps: number;
  private readonly topicAdds: number;
  private readonly ownKeeps: number;
  private readonly ownAdds: number;

  constructor(
    private readonly options: SyntheticOptions,
    private readonly normal: () => number,
  ) {
    const { knobs, shape } = options;
    this.lasting = new Float64Array(shape.experts);
    this.topic = new Float64Array(shape.experts);
    this.own = new Float64Array(shape.experts);
    this.base = new Float64Array(shape.experts);
    this.bestScores = new Float64Array(shape.topK);
    this.topicKeeps = Math.exp(-TOPIC_STRIDE / knobs.topicTokens);
    this.topicAdds = Math.sqrt(1 - this.topicKeeps ** 2);
    this.ownKeeps = Math.exp(-1 / knobs.reuseTokens);
    this.ownAdds = Math.sqrt(1 - this.ownKeeps ** 2);
  }

  /** A new layer. */
  restart(): void {
    const { normal } = this;
    for (let expert = 0; expert < this.own.length; expert++) {
      this.lasting[expert] = normal();
      this.topic[expert] = normal();
      this.own[expert] = normal();
    }
  }

  /** The experts of the next token, ascending. */
  next(token: number, chosen: Uint16Array): void {
    const { promptTokens, correlation } = this.options;
    if (token === promptTokens && correlation < 1) this.decorrelate(correlation);
    if (token % TOPIC_STRIDE === 0 || token === promptTokens) this.updateBase();
    this.choose(chosen);
    chosen.sort();
  }

  private decorrelate(correlation: number): void {
    const fresh = Math.sqrt(1 - correlation ** 2);
    for (let expert = 0; expert < this.lasting.length; expert++) {
      this.lasting[expert] = correlation * (this.lasting[expert] as number) + fresh * this.normal();
    }
  }

  private updateBase(): void {
    const { lasting, topic, base, topicKeeps, topicAdds, normal } = this;
    const { knobs } = this.options;
    for (let expert = 0; expert < base.length; expert++) {
      const drifted = topicKeeps * (topic[expert] as number) + topicAdds * normal();
      topic[expert] = drifted;
      const popularity = lasting[expert] as number;
      base[expert] = knobs.skew * (popularity + (knobs.tail * popularity ** 3) / 6) + knobs.topic * drifted;
    }
  }

  /** Moves the token's own part on and keeps the topK best sums by insertion. */
  private choose(chosen: Uint16Array): void {
    const { own, base, bestScores, ownKeeps, ownAdds, normal } = this;
    const topK = chosen.length;
    let filled = 0;
    let least = Number.NEGATIVE_INFINITY;
    for (let expert = 0; expert < own.length; expert++) {
      const value = ownKeeps * (own[expert] as number) + ownAdds * normal();
      own[expert] = value;
      const score = (base[expert] as number) + value;
      if (filled === topK && score <= least) continue;
      let at = filled < topK ? filled++ : topK - 1;
      for (; at > 0 && (bestScores[at - 1] as number) < score; at--) {
        bestScores[at] = bestScores[at - 1] as number;
        chosen[at] = chosen[at - 1] as number;
      }
      bestScores[at] = score;
      chosen[at] = expert;
      if (filled === topK) least = bestScores[topK - 1] as number;
    }
  }
}

function check({ shape, knobs, promptTokens, answerTokens, correlation, seed }: SyntheticOptions): void {
  const { experts, topK } = shape;
  if (!(Number.isInteger(topK) && topK >= 1 && topK <= experts)) {
    throw new OptionError('topK', `an integer from 1 to ${experts}`, topK);
  }
  if (!(experts <= 0xffff)) throw new OptionError('experts', 'at most 65535', experts);
  for (const [name, value] of Object.entries({ promptTokens, answerTokens })) {
    if (!Number.isInteger(value) || value < 1) throw new OptionError(name, 'an integer >= 1', value);
  }
  if (!(correlation >= 0 && correlation <= 1)) {
    throw new OptionError('correlation', 'a number from 0 to 1', correlation);
  }
  if (!Number.isSafeInteger(seed) || seed < 0) throw new OptionError('seed', 'an integer >= 0', seed);
  for (const name of ['skew', 'tail', 'topic'] as const) {
    if (!(knobs[name] >= 0 && knobs[name] < 100)) throw new OptionError(name, 'a number >= 0', knobs[name]);
  }
  for (const name of ['topicTokens', 'reuseTokens'] as const) {
    if (!(knobs[name] > 0)) throw new OptionError(name, 'a number > 0', knobs[name]);
  }
}
