/**
 * The async face of one engine worker: load, generate, chat, plan, dispose. Called by index.ts, the command line and
 * the server. Checks options and hands over; it never computes and never blocks the main thread.
 */
import { needsMarks } from './answer/answer-reader.js';
import { offeredFunctions, readAnswer } from './answer/chat-answer.js';
import { ChatSession, type ChatSessionOptions } from './engine/chat-session.js';
import type { Generation, GenerationOptions } from './engine/generation.js';
import type { PromptMessage } from './engine/messages.js';
import type { ModelFacts } from './engine/model-facts.js';
import type { PlanReport } from './engine/result.js';
import type { EngineStats } from './engine/stats.js';
import { WorkerClient } from './engine/worker-client.js';
import {
  type ChatMessage,
  type ChatOptions,
  checkChat,
  checkGenerateOptions,
  checkLoadOptions,
  checkPrompt,
  type GenerateOptions,
  type LoadOptions,
  type LoadProgress,
  type Prompt,
} from './options.js';

export type { ChatAnswer } from './answer/chat-answer.js';
export type { ToolCall } from './answer/tool-calls.js';
export type { Generation, GenerationPart } from './engine/generation.js';
export type * from './engine/result.js';
export type { EngineStats, StepTimeline, StepTotals } from './engine/stats.js';
export type { TraceSpan } from './trace/chrome.js';

/** A loaded model. One engine worker computes; requests made at the same time share its steps. */
export class Model implements AsyncDisposable {
  /** What was loaded and where it was placed; `plan()` tells the present state. */
  readonly info: PlanReport;
  #client: WorkerClient;

  /** Use `loadModel`. */
  constructor(client: WorkerClient, info: PlanReport) {
    this.#client = client;
    this.info = info;
  }

  /**
   * Continues a text. Iterate over the parts, or await `result`, or both:
   *
   *     const story = model.generate('Once upon a time', { maxTokens: 100 });
   *     for await (const part of story) process.stdout.write(part);
   *     const { timings } = await story.result;
   *
   * Throws OptionError at once; all other errors (PromptError, AbortedError, DisposedError, EngineCrashedError)
   * reject the iteration and `result`.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    checkPrompt(prompt);
    checkGenerateOptions(options);
    const message: PromptMessage =
      typeof prompt === 'string'
        ? { kind: 'text', text: prompt }
        : { kind: 'ids', ids: Int32Array.from(prompt.inputIds) };
    return this.#start(message, options);
  }

  /**
   * Answers a conversation by the model's own chat template. The parts and `text` are what the model wrote, marks of
   * reasoning and tool calls included; the result's `answer` tells them apart. Errors as in `generate`, and
   * ChatTemplateError.
   */
  chat(messages: readonly ChatMessage[], options: ChatOptions = {}): Generation {
    checkChat(messages, options);
    const { tools, variables, ...rest } = options;
    const { toolCalls, reasoning } = this.info;
    const functions = offeredFunctions(tools);
    const styles = { toolCalls, reasoning };
    return this.#start(
      { kind: 'chat', messages: [...messages], template: { tools, variables } },
      { skipSpecialTokens: !needsMarks(styles, functions.length > 0), ...rest },
      (text, beginsInReasoning) => readAnswer(text, styles, functions, beginsInReasoning),
    );
  }

  /** A conversation that keeps its history. */
  createChatSession(options: ChatSessionOptions = {}): ChatSession {
    return new ChatSession((messages, rest) => this.chat(messages, rest), this.info.toolCalls, options);
  }

  /** What the model weighs, from its files: parameters, bytes by kind and format, bytes read per token. */
  inspect(): Promise<ModelFacts> {
    return this.#client.inspect();
  }

  /** What is placed where at this moment, and why. */
  plan(): Promise<PlanReport> {
    return this.#client.plan();
  }

  /**
   * What the engine did since it was loaded and in the last seconds. `timeline` also gives the lanes' spans of a few
   * steps, recorded after the previous call that asked for them.
   */
  stats({ timeline = false } = {}): Promise<EngineStats> {
    return this.#client.stats(timeline);
  }

  /** Ends running requests (they reject with DisposedError) and frees all memory. Idempotent. */
  dispose(): Promise<void> {
    return this.#client.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #start(
    prompt: PromptMessage,
    options: GenerateOptions,
    readAnswer?: GenerationOptions['readAnswer'],
  ): Generation {
    const { signal, onProgress, ...plain } = options;
    return this.#client.generate(prompt, plain, { signal, onProgress, readAnswer });
  }
}

/**
 * Loads a checkpoint into an engine worker of its own.
 * Rejects with OptionError, ModelFormatError, TokenizerError, MemoryError, AddonLoadError or AbortedError.
 */
export async function loadModel(options: LoadOptions): Promise<Model> {
  checkLoadOptions(options);
  const { signal, onProgress, isolate, ...plain } = options;
  const client = new WorkerClient(plain, isolate);
  return new Model(client, await client.load(onProgress ?? warnOnly, signal));
}

/** Warnings must reach somebody. */
function warnOnly({ warning }: LoadProgress): void {
  if (warning !== undefined) process.emitWarning(`nearmoe: ${warning}`);
}
