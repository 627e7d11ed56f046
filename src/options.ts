/**
 * Every option of loading and generating: its type, its default, its check. Called by llm.ts before anything is
 * sent to the engine's worker, and by the command line for its defaults. Checks values only: whether a combination
 * fits the model or the machine (tpDegree <= units, vram, a prompt longer than the context) is the engine's to say.
 */
import { OptionError } from './errors.js';
import { isResponseFormat, type ResponseFormat } from './grammar/response-format.js';
import {
  abortSignal,
  type Check,
  callback,
  check,
  flag,
  integer,
  number,
  oneOf,
  plainObject,
  text,
} from './options/checks.js';
import { QUANTIZE_FORMATS, type QuantizeFormat } from './options/quantize-formats.js';
import { sizeBytes } from './options/size-bytes.js';

/** What loading tells while it runs; `doneBytes` never falls. */
export type LoadProgress = {
  phase: 'open' | 'weights' | 'cache' | 'calibrate' | 'ready';
  doneBytes: number;
  totalBytes: number;
  /** Something that went wrong and was made good. Without onProgress it becomes a warning of the process. */
  warning?: string;
};

/** What a request tells while it runs: tokens of the prompt computed, then tokens generated. */
export type GenerateProgress = { phase: 'prefill' | 'decode'; doneTokens: number; totalTokens: number };

export type KvDtype = 'f32' | 'f16' | 'bf16' | 'q8_0';

/** The part of the load options that crosses to the worker: plain data. */
export type EngineOptions = {
  /** Folder of a Hub checkpoint, or a .gguf file. */
  model: string;
  /**
   * Quantises the matrices of a float checkpoint while they are loaded. With formats of 4 and 5 bits the output matrix
   * takes q6_k. Default: weights stay as they are stored.
   */
  quantize?: QuantizeFormat;
  /**
   * Folder for a copy of the weights as they are packed for this machine's units. A second start maps it in place of
   * packing again; one that is damaged or out of date is made anew, with a warning. Default: none.
   */
  repackCache?: string;
  /** NDP units. Default: one per physical core, or one per NUMA node where there are several. */
  units?: number;
  /** Compute threads of each unit. Default: physical cores / units. */
  threadsPerUnit?: number;
  /** Units that one expert is cut over: 1 (expert parallelism) to `units` (default). */
  tpDegree?: number;
  /** GPU lane. 'host' plays a GPU on CPU threads; 'auto' (default) takes a real one where there is one, else off. */
  gpu?: 'auto' | 'cuda' | 'host' | 'emulated' | 'off';
  /** Threads of the host GPU lane. Default 1. */
  gpuThreads?: number;
  /** Bytes of GPU memory for experts, also as "512MB" or "4GiB". Default: a quarter of the experts' bytes. */
  vram?: number | string;
  /** Bandwidth of weight transfers to the host GPU lane, in 1e9 bytes/s. Default: as fast as memory copies. */
  transferBandwidthGBs?: number;
  /** Scheduling policy of src/schedule. Default 'balanced'. */
  policy?: string;
  /** Prefetch predictor of src/schedule. Default 'prefill'. */
  prefetch?: string;
  /** Eviction rule of the expert cache. Default 'score'. */
  cachePolicy?: string;
  /** Precision of the KV cache. 'auto' (default): f32 for float checkpoints, f16 for quantised ones. */
  kvDtype?: 'auto' | KvDtype;
  /** Longest sequence in tokens, prompt and answer. Default: what the model allows, at most 8192. */
  maxContext?: number;
  /** Tokens of KV cache shared by all running sequences. Default: maxContext, at least 8192. */
  kvTokens?: number;
  /** Most tokens of one step; longer prompts are computed in chunks of it. Default 512. */
  maxBatchTokens?: number;
  /** Most sequences computed in one step; more requests wait. Default 16. */
  maxSequences?: number;
  /**
   * Keeps KV blocks of finished requests until room is needed, so that a prompt that begins like an earlier one is
   * computed only from where it differs. Changes no result. Default true.
   */
  prefixCache?: boolean;
  /** Pins each compute thread to a core. Default true. */
  pinThreads?: boolean;
  /** Instruction set to force ("scalar", "avx2", ...). Default: the best one of the machine. */
  isa?: string;
};

export type LoadOptions = EngineOptions & {
  /**
   * Where the engine runs: a worker 'thread' (default), or a child 'process', so that a crash of native code ends that
   * one alone: running requests reject with EngineCrashedError, and the model is loaded again.
   */
  isolate?: 'thread' | 'process';
  onProgress?: (progress: LoadProgress) => void;
  /** Stops loading; `loadModel` then rejects with AbortedError. */
  signal?: AbortSignal;
};

/** The part of the generate options that crosses to the worker: plain data. */
export type RequestOptions = {
  /** Tokens to generate at most. Default 256. */
  maxTokens?: number;
  /** 0 is greedy. Default: the model's generation_config.json, else 0. */
  temperature?: number;
  /** Keep the k likeliest tokens; 0 = all. Default: generation_config.json, else 0. */
  topK?: number;
  /** Keep the likeliest tokens that reach this probability. Default: generation_config.json, else 1. */
  topP?: number;
  /** Drop tokens less likely than minP times the likeliest. Default 0. */
  minP?: number;
  /** Divides positive and multiplies negative logits of tokens already seen. Default: generation_config.json, else 1. */
  repetitionPenalty?: number;
  /** Subtracts this from the logits of tokens, once per time the answer holds them. Default 0. */
  frequencyPenalty?: number;
  /** Subtracts this once from the logits of tokens that the answer holds. Default 0. */
  presencePenalty?: number;
  /** Added to the logits of these token ids before anything else. */
  logitBias?: Readonly<Record<number, number>>;
  /** Seed of sampling. Default: drawn anew for each request, told in the result. */
  seed?: number;
  /** Texts that end generation; they are not part of the text. */
  stop?: string | readonly string[];
  /** Leaves tokens such as <|im_end|> out of the text. Default true. */
  skipSpecialTokens?: boolean;
  /** Goes on after an end-of-text token. Default false. */
  ignoreEos?: boolean;
  /** Log-probabilities of each generated token and of this many likeliest ones (0..20). Default: none. */
  logprobs?: number;
  /**
   * Log-probabilities of each prompt token but the first, and of this many likeliest ones in its place (0..20). The
   * prompt is then computed as a whole, in smaller chunks. Default: none.
   */
  promptLogprobs?: number;
  /**
   * Form that the answer is held to, token by token; it ends by itself when nothing may follow. Cut short by
   * `maxTokens` it is a beginning of that form. Default: free text.
   */
  responseFormat?: ResponseFormat;
  /** Keeps the logits row of each generated token in the result. */
  captureLogits?: boolean;
  /** Keeps the experts each computed token was routed to in the result. */
  recordRouting?: boolean;
  /** Keeps the device lanes' events of this request's steps in the result. */
  trace?: boolean;
};

export type GenerateOptions = RequestOptions & {
  onProgress?: (progress: GenerateProgress) => void;
  /** Ends the request within one layer's time; iteration and result then reject with AbortedError. */
  signal?: AbortSignal;
};

/** Text, or token ids that are taken as they are. */
export type Prompt = string | { inputIds: readonly number[] };

export type ChatMessage = {
  role: 'system' | 'user' | 'assistant' | 'tool' | (string & {});
  content: string;
  [extra: string]: unknown;
};

/** Variables for the model's chat template beside the messages. */
export type ChatTemplateOptions = {
  /** Tool definitions in the OpenAI form, where the template takes them. */
  tools?: readonly object[];
  /** Further variables of the template, such as `enable_thinking`. */
  variables?: Record<string, unknown>;
};

export type ChatOptions = GenerateOptions & ChatTemplateOptions;

export const LOAD_DEFAULTS = {
  gpu: 'auto',
  gpuThreads: 1,
  policy: 'balanced',
  prefetch: 'prefill',
  cachePolicy: 'score',
  kvDtype: 'auto',
  maxBatchTokens: 512,
  maxSequences: 16,
  prefixCache: true,
  pinThreads: true,
  isa: '',
} as const satisfies Partial<EngineOptions>;

export const GENERATE_DEFAULTS = {
  maxTokens: 256,
  minP: 0,
  frequencyPenalty: 0,
  presencePenalty: 0,
  ignoreEos: false,
  captureLogits: false,
  recordRouting: false,
  trace: false,
} as const satisfies Partial<RequestOptions>;

const loadChecks: { [Name in keyof Required<LoadOptions>]: Check } = {
  model: text,
  quantize: oneOf(...QUANTIZE_FORMATS),
  repackCache: text,
  units: integer(1),
  threadsPerUnit: integer(1),
  tpDegree: integer(1),
  gpu: oneOf('auto', 'cuda', 'host', 'emulated', 'off'),
  gpuThreads: integer(1),
  vram: {
    expected: 'bytes >= 0 or a size such as "512MB"',
    holds: (value) => sizeBytes(value) !== undefined,
  },
  transferBandwidthGBs: number('a number > 0', (value) => value > 0),
  policy: text,
  prefetch: text,
  cachePolicy: text,
  kvDtype: oneOf('auto', 'f32', 'f16', 'bf16', 'q8_0'),
  maxContext: integer(1),
  kvTokens: integer(1),
  maxBatchTokens: integer(1, 65536),
  maxSequences: integer(1, 4096),
  prefixCache: flag,
  pinThreads: flag,
  isa: { expected: 'a string', holds: (value) => typeof value === 'string' },
  isolate: oneOf('thread', 'process'),
  onProgress: callback,
  signal: abortSignal,
};

const stopTexts: Check = {
  expected: 'a non-empty string or a list of them',
  holds: (value) => text.holds(value) || (Array.isArray(value) && value.every((entry) => text.holds(entry))),
};

const toolList: Check = {
  expected: 'a list of objects',
  holds: (value) => Array.isArray(value) && value.every((entry) => plainObject.holds(entry)),
};

const tokenBiases: Check = {
  expected: 'an object of finite numbers by token id',
  holds: (value) =>
    plainObject.holds(value) &&
    Object.entries(value as object).every(([id, bias]) => /^\d{1,9}$/.test(id) && Number.isFinite(bias)),
};

const generateChecks: { [Name in keyof Required<GenerateOptions>]: Check } = {
  maxTokens: integer(1),
  temperature: number('a number >= 0', (value) => value >= 0 && value < Infinity),
  topK: integer(0),
  topP: number('a number > 0 and <= 1', (value) => value > 0 && value <= 1),
  minP: number('a number from 0 to 1', (value) => value >= 0 && value <= 1),
  repetitionPenalty: number('a number > 0', (value) => value > 0 && value < Infinity),
  frequencyPenalty: number('a finite number', Number.isFinite),
  presencePenalty: number('a finite number', Number.isFinite),
  logitBias: tokenBiases,
  seed: integer(0),
  stop: stopTexts,
  skipSpecialTokens: flag,
  ignoreEos: flag,
  logprobs: integer(0, 20),
  promptLogprobs: integer(0, 20),
  responseFormat: {
    expected:
      '{ type: "json_schema", schema }, { type: "json_object" }, { type: "regex", pattern } or { type: "text" }',
    holds: isResponseFormat,
  },
  captureLogits: flag,
  recordRouting: flag,
  trace: flag,
  onProgress: callback,
  signal: abortSignal,
};

/** Checks what a caller passed to `loadModel`. Throws OptionError; unknown names are refused too. */
export function checkLoadOptions(options: LoadOptions): void {
  check(options, loadChecks);
  if (options.model === undefined) throw new OptionError('model', text.expected, undefined);
}

/** Checks what a caller passed to `generate`. Throws OptionError; unknown names are refused too. */
export function checkGenerateOptions(options: GenerateOptions): void {
  check(options, generateChecks);
}

/** Checks what a caller passed to `chat`. Throws OptionError. */
export function checkChat(messages: readonly ChatMessage[], options: ChatOptions): void {
  check(options, { ...generateChecks, tools: toolList, variables: plainObject });
  const given: unknown = messages;
  if (!Array.isArray(given) || given.length === 0) {
    throw new OptionError('messages', 'a non-empty list of { role, content }', given);
  }
  given.forEach((message: Partial<ChatMessage> | null, index) => {
    if (typeof message?.role !== 'string' || typeof message.content !== 'string') {
      throw new OptionError(`messages[${index}]`, '{ role, content } with two strings', message);
    }
  });
}

/** Checks a prompt: a string, or ids that are integers >= 0. An empty one is the engine's to refuse. */
export function checkPrompt(prompt: Prompt): void {
  if (typeof prompt === 'string') return;
  const ids: unknown = (prompt as { inputIds?: unknown } | null)?.inputIds;
  if (!Array.isArray(ids)) throw new OptionError('prompt', 'a string or { inputIds: number[] }', prompt);
  const bad = ids.findIndex((id) => !integer(0, 0x7fffffff).holds(id));
  if (bad >= 0) throw new OptionError(`inputIds[${bad}]`, 'an integer >= 0', ids[bad]);
}
