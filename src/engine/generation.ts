/**
 * One request as its caller sees it: text parts to iterate over and the final result. Lives on the main thread, fed
 * by worker-client.ts. A reader that lags is not run over: parts count as read when the iterator hands them out, and
 * the engine pauses a sequence with too many unread parts. Leaving the loop early cancels the request.
 */
import type { ChatAnswer } from '../answer/chat-answer.js';
import { AbortedError } from '../errors.js';
import type { GenerateProgress } from '../options.js';
import type { GenerateResult, TokenLogprob } from './result.js';

/** What a generation needs of the engine. */
export type GenerationPort = {
  cancel: () => void;
  /** Tells that `parts` more parts were read. */
  read: (parts: number) => void;
};

/** What one or several steps gave: text, and with `logprobs` the tokens whose text begins in it. */
export type GenerationPart = {
  text: string;
  logprobs?: TokenLogprob[];
  /** The text begins inside of the model's reasoning, which the prompt of a chat has opened; first part only. */
  inReasoning?: true;
};

export type GenerationOptions = {
  signal?: AbortSignal;
  onProgress?: (progress: GenerateProgress) => void;
  /** Of a chat. `beginsInReasoning`: the prompt has opened it. */
  readAnswer?: (text: string, beginsInReasoning: boolean) => ChatAnswer;
};

type Reader = {
  resolve: (result: IteratorResult<GenerationPart, undefined>) => void;
  reject: (error: unknown) => void;
};

const DONE: IteratorResult<never, undefined> = { done: true, value: undefined };

/**
 * Text as it is generated, for one reader: `for await (const part of generation)`. Parts never split a character.
 * `result` may be awaited with or without reading the parts. Rejects with AbortedError where `signal` aborted.
 */
export class Generation implements AsyncIterable<string>, Disposable {
  readonly result: Promise<GenerateResult>;
  #parts: GenerationPart[] = [];
  #readers: Reader[] = [];
  #iterated = false;
  #ended = false;
  #inReasoning = false;
  /** Told to no part yet. */
  #isOpening = false;
  #error: unknown;
  #port: GenerationPort;
  #settle!: { resolve: (result: GenerateResult) => void; reject: (error: unknown) => void };
  #signal: AbortSignal | undefined;
  #onProgress: ((progress: GenerateProgress) => void) | undefined;
  #readAnswer: GenerationOptions['readAnswer'];
  #onAbort = () => this.cancel();

  constructor(port: GenerationPort, options: GenerationOptions = {}) {
    this.#port = port;
    this.#signal = options.signal;
    this.#onProgress = options.onProgress;
    this.#readAnswer = options.readAnswer;
    this.result = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // The reader of the parts gets the error too; a caller who never asks for `result` must not crash on it.
    this.result.catch(() => undefined);
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Ends the request; `result` then resolves with what was generated and finishReason 'cancelled'. */
  cancel(): void {
    if (!this.#ended) this.#port.cancel();
  }

  [Symbol.asyncIterator](): AsyncIterator<string, undefined> {
    const parts = this.parts();
    return {
      next: async () => {
        for (;;) {
          const { done, value } = await parts.next();
          if (done) return DONE;
          if (value.text !== '') return { done: false, value: value.text };
        }
      },
      return: async () => {
        await parts.return?.();
        return DONE;
      },
    };
  }

  /** The text for one reader as a Web stream; cancelling it ends the request. Nothing is read ahead of its reader. */
  toReadableStream(): ReadableStream<string> {
    const parts = this[Symbol.asyncIterator]();
    return new ReadableStream<string>(
      {
        pull: async (controller) => {
          const { done, value } = await parts.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: async () => {
          await parts.return?.();
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** Ends the request where a `using` block ends before it. */
  [Symbol.dispose](): void {
    this.cancel();
  }

  /** The same text as the iteration, for the same one reader, with what else is known of each part. */
  parts(): AsyncIterableIterator<GenerationPart, undefined> {
    this.#iterated = true;
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: () => this.#next(),
      return: async () => {
        this.cancel();
        this.#parts = [];
        return DONE;
      },
    };
  }

  /** Called by the client, before any part: the prompt has opened the model's reasoning. */
  openReasoning(): void {
    this.#inReasoning = true;
    this.#isOpening = true;
  }

  /** Called by the client: one more part, one more progress report. */
  push(text: string, progress?: GenerateProgress, logprobs?: TokenLogprob[]): void {
    if (progress !== undefined) this.#onProgress?.(progress);
    if (text === '' && !logprobs?.length) return;
    const reader = this.#readers.shift();
    const part: GenerationPart = { text, logprobs, ...(this.#isOpening ? { inReasoning: true } : {}) };
    this.#isOpening = false;
    if (reader === undefined) this.#parts.push(part);
    else reader.resolve({ done: false, value: part });
    // Without a reader the parts wait for one, at most one answer long; only a reader that lags holds the engine up.
    if (reader !== undefined || !this.#iterated) this.#port.read(1);
  }

  /** Called by the client: the request is over. */
  finish(result: GenerateResult): void {
    if (result.finishReason === 'cancelled' && this.#signal?.aborted) {
      this.fail(new AbortedError('The generation', this.#signal.reason));
      return;
    }
    this.#end();
    const answer = this.#readAnswer?.(result.text, this.#inReasoning);
    this.#settle.resolve(answer === undefined ? result : { ...result, answer });
    for (const reader of this.#readers.splice(0)) reader.resolve(DONE);
  }

  /** Called by the client: the request failed. */
  fail(error: unknown): void {
    this.#error = error;
    this.#end();
    this.#settle.reject(error);
    for (const reader of this.#readers.splice(0)) reader.reject(error);
  }

  #end(): void {
    this.#ended = true;
    this.#signal?.removeEventListener('abort', this.#onAbort);
  }

  #next(): Promise<IteratorResult<GenerationPart, undefined>> {
    const value = this.#parts.shift();
    if (value !== undefined) {
      if (!this.#ended) this.#port.read(1);
      return Promise.resolve({ done: false, value });
    }
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }
}
