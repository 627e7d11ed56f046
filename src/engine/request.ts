/**
 * One request from its prompt to its result: samples tokens from the logits that steps bring, turns them into text,
 * knows when it is over, keeps its books. Made and driven by engine.ts. Knows nothing of batching or devices.
 */

import type { Constraint } from '../grammar/constraint.js';
import type { GenerateProgress } from '../options.js';
import type { TraceSpan } from '../trace/chrome.js';
import { addCosts, deviceStats, noCosts, type StepCosts, timings } from './accounting.js';
import { type Candidates, candidatesWanted } from './candidates.js';
import { LogprobRecorder } from './logprob-recorder.js';
import type { FinishReason, GenerateResult, TokenLogprob } from './result.js';
import type { RoutingRecorder } from './routing-recorder.js';
import { Sampler, type SamplingParams } from './sampler.js';
import type { Sequence } from './sequence.js';
import { StopStrings } from './stop-strings.js';

/** Turns token ids into text piece by piece, never splitting a character. */
export type TextStream = { push(tokenId: number): string; flush(): string };

/** What a request asks for, defaults filled in. */
export type RequestParams = {
  sampling: SamplingParams;
  maxTokens: number;
  stop: readonly string[];
  ignoreEos: boolean;
  /** -1 = none. */
  logprobs: number;
  /** -1 = none. */
  promptLogprobs: number;
  captureLogits: boolean;
  trace: boolean;
};

export type RequestParts = {
  sequence: Sequence;
  params: RequestParams;
  eosIds: ReadonlySet<number>;
  vocabSize: number;
  text: TextStream;
  /** Bytes of a token's text. */
  tokenBytes: (tokenId: number) => Uint8Array;
  routing: RoutingRecorder | undefined;
  /** Which tokens may come next; undefined: all. */
  constraint: Constraint | undefined;
  units: number;
  hasGpu: boolean;
  arrivedUs: number;
};

export class Request {
  readonly sequence: Sequence;
  readonly params: RequestParams;
  readonly costs: StepCosts;
  readonly trace: TraceSpan[] = [];
  finishReason: FinishReason | undefined;
  /** Parts sent and not yet told to be read. */
  unread = 0;
  #parts: RequestParts;
  #sampler: Sampler;
  #stops: StopStrings | undefined;
  #text = '';
  #fresh = '';
  #startedUs: number | undefined;
  #tokenUs: number[] = [];
  #logits: Float32Array[] = [];
  #logprobs: LogprobRecorder | undefined;
  #promptLogprobs: LogprobRecorder | undefined;

  constructor(parts: RequestParts) {
    this.#parts = parts;
    this.sequence = parts.sequence;
    this.params = parts.params;
    this.costs = noCosts(parts.units);
    this.#sampler = new Sampler(parts.params.sampling);
    this.#sampler.observe(parts.sequence.tokens(0, parts.sequence.length), false);
    if (parts.params.logprobs >= 0)
      this.#logprobs = new LogprobRecorder(parts.params.logprobs, parts.tokenBytes);
    if (parts.params.promptLogprobs >= 0)
      this.#promptLogprobs = new LogprobRecorder(parts.params.promptLogprobs, parts.tokenBytes);
    // Whoever looks at whole rows anyway samples from them too.
    const { logprobs, promptLogprobs, captureLogits, sampling } = parts.params;
    const reads = logprobs >= 0 || promptLogprobs >= 0 || captureLogits || parts.constraint !== undefined;
    parts.sequence.candidates = reads ? 0 : candidatesWanted(sampling);
    if (parts.params.stop.length > 0) this.#stops = new StopStrings(parts.params.stop);
  }

  get id(): number {
    return this.sequence.id;
  }

  get routing(): RoutingRecorder | undefined {
    return this.#parts.routing;
  }

  /** A step that this request took part in. */
  addStep(costs: StepCosts, startedUs: number): void {
    this.#startedUs ??= startedUs;
    addCosts(this.costs, costs);
  }

  /** Takes the logits [rows * vocabSize] behind the prompt tokens computed last, where they were asked for. */
  score(logits: Float32Array): void {
    const { sequence, params } = this;
    const { vocabSize } = this.#parts;
    if (params.promptLogprobs < 0 || sequence.scored >= sequence.promptLength) return;
    for (let at = 0; at < logits.length; at += vocabSize) {
      sequence.scored++;
      const [next] = sequence.tokens(sequence.scored, sequence.promptLength);
      if (next !== undefined) this.#promptLogprobs?.add(logits.subarray(at, at + vocabSize), next);
    }
  }

  /**
   * Takes the logits behind the last token [vocabSize], chooses the next token, decides whether it is the last.
   * `candidates`: its largest, where the sequence asked for them. Throws PromptError where the response format leaves no token.
   */
  accept(logits: Float32Array, nowUs: number, candidates?: Candidates): void {
    const { params, sequence } = this;
    const { constraint } = this.#parts;
    const tokenId = this.#sampler.sample(logits, constraint?.mask(), candidates);
    if (params.captureLogits) this.#logits.push(logits.slice());
    this.#logprobs?.add(logits, tokenId);
    sequence.append(tokenId);
    this.#sampler.observe([tokenId], true);
    this.#tokenUs.push(nowUs);
    const isEnd = this.#parts.eosIds.has(tokenId);
    if (isEnd && (constraint !== undefined || !params.ignoreEos)) this.finish('eos');
    else this.#read(this.#parts.text.push(tokenId));
    if (!isEnd) constraint?.accept(tokenId);
    if (this.finishReason !== undefined) return;
    if (constraint?.isOver) this.finish('eos');
    else if (sequence.generated >= params.maxTokens) this.finish('length');
    else if (sequence.isFull) this.finish('context');
  }

  /** Ends the request. Text held back for a stop text or an unfinished character is given out. */
  finish(reason: FinishReason): void {
    if (reason !== 'stop') {
      this.#read(this.#parts.text.flush());
      // The very end of the text may still have completed a stop text.
      if (this.finishReason === 'stop') return;
      this.#fresh += this.#stops?.flush() ?? '';
    }
    this.finishReason = reason;
  }

  /** Text that became certain since the last call. */
  takeText(): string {
    const text = this.#fresh;
    this.#text += text;
    this.#fresh = '';
    return text;
  }

  /** With `logprobs`: the tokens whose text was taken and that were not yet given. To be called after takeText. */
  takeLogprobs(): TokenLogprob[] | undefined {
    const ended =
      this.finishReason !== undefined && this.finishReason !== 'stop' && this.finishReason !== 'eos';
    return this.#logprobs?.take(ended ? Infinity : this.#text.length);
  }

  get progress(): GenerateProgress {
    const { computed, promptLength, generated } = this.sequence;
    if (generated > 0) return { phase: 'decode', doneTokens: generated, totalTokens: this.params.maxTokens };
    return { phase: 'prefill', doneTokens: Math.min(computed, promptLength), totalTokens: promptLength };
  }

  /** To be called once, after takeText. */
  result(endedUs: number): GenerateResult {
    const { sequence, params } = this;
    const { promptLength, generated } = sequence;
    const cached = Math.min(sequence.cached, promptLength);
    const startedUs = this.#startedUs ?? endedUs;
    return {
      text: this.#text,
      tokenIds: [...sequence.tokens(promptLength, sequence.length)],
      finishReason: this.finishReason ?? 'cancelled',
      seed: params.sampling.seed,
      usage: {
        promptTokens: promptLength,
        completionTokens: generated,
        totalTokens: promptLength + generated,
        cachedPromptTokens: cached,
      },
      timings: timings(
        { arrivedUs: this.#parts.arrivedUs, startedUs, tokenUs: this.#tokenUs, endedUs },
        Math.max(0, (generated > 0 ? promptLength : sequence.computed) - cached),
      ),
      experts: this.costs.experts,
      devices: deviceStats(this.costs, this.#parts.hasGpu),
      ...(this.#logprobs ? { logprobs: this.#logprobs.all } : {}),
      ...(this.#promptLogprobs ? { promptLogprobs: this.#promptLogprobs.all } : {}),
      ...(params.captureLogits ? { logits: joined(this.#logits, this.#parts.vocabSize) } : {}),
      ...(this.routing ? { routing: this.routing.record() } : {}),
      ...(params.trace ? { trace: this.trace } : {}),
    };
  }

  #read(piece: string): void {
    this.#logprobs?.addText(piece.length);
    const { text, stopped } = this.#stops?.push(piece) ?? { text: piece, stopped: false };
    this.#fresh += text;
    if (stopped) this.finish('stop');
  }
}

function joined(rows: readonly Float32Array[], vocabSize: number) {
  const values = new Float32Array(rows.length * vocabSize);
  rows.forEach((row, index) => {
    values.set(row, index * vocabSize);
  });
  return { rows: rows.length, vocabSize, values };
}
