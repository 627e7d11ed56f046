/**
 * `nearmoe/ai-sdk`: a loaded model as a language model of the Vercel AI SDK (specification v3; `ai` 6), for
 * generateText, streamText and their kin. Text in and out, JSON by schema; other parts of a prompt are refused, settings
 * without a meaning here come back as warnings, as the specification asks. @ai-sdk/provider is an optional peer.
 */
import {
  type LanguageModelV3,
  type LanguageModelV3CallOptions,
  type LanguageModelV3FinishReason,
  type LanguageModelV3GenerateResult,
  type LanguageModelV3Prompt,
  type LanguageModelV3StreamPart,
  type LanguageModelV3StreamResult,
  type LanguageModelV3Usage,
  type SharedV3Warning,
  UnsupportedFunctionalityError,
} from '@ai-sdk/provider';
import type { ResponseFormat } from '../grammar/response-format.js';
import type { FinishReason, Generation, Model, Usage } from '../llm.js';
import type { ChatMessage, ChatOptions } from '../options.js';

export type NearmoeLanguageModelOptions = {
  /** Name told to the SDK. Default: the architecture. */
  modelId?: string;
  /** Options of every call, which the call's own settings replace. */
  defaults?: ChatOptions;
};

/** A language model of the AI SDK that answers with `model`, which stays the caller's to dispose. */
export function nearmoeLanguageModel(
  model: Model,
  options: NearmoeLanguageModelOptions = {},
): LanguageModelV3 {
  return new NearmoeLanguageModel(model, options);
}

class NearmoeLanguageModel implements LanguageModelV3 {
  readonly specificationVersion = 'v3';
  readonly provider = 'nearmoe';
  readonly modelId: string;
  readonly supportedUrls = {};
  #model: Model;
  #defaults: ChatOptions;

  constructor(model: Model, { modelId, defaults = {} }: NearmoeLanguageModelOptions) {
    this.#model = model;
    this.#defaults = defaults;
    this.modelId = modelId ?? model.info.architecture;
  }

  async doGenerate(call: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    const { text, finishReason, usage } = await this.#start(call).result;
    return {
      content: [{ type: 'text', text }],
      finishReason: finishReasonOf(finishReason),
      usage: usageOf(usage),
      warnings: warningsOf(call),
      response: { modelId: this.modelId },
    };
  }

  async doStream(call: LanguageModelV3CallOptions): Promise<LanguageModelV3StreamResult> {
    const generation = this.#start(call);
    const parts = streamParts(generation, warningsOf(call), this.modelId);
    const stream = new ReadableStream<LanguageModelV3StreamPart>(
      {
        pull: async (controller) => {
          const { done, value } = await parts.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: () => generation.cancel(),
      },
      { highWaterMark: 0 },
    );
    return { stream };
  }

  #start(call: LanguageModelV3CallOptions): Generation {
    const settings: ChatOptions = {
      maxTokens: call.maxOutputTokens,
      temperature: call.temperature,
      topP: call.topP,
      topK: call.topK,
      presencePenalty: call.presencePenalty,
      frequencyPenalty: call.frequencyPenalty,
      seed: call.seed,
      stop: call.stopSequences?.length ? call.stopSequences : undefined,
      responseFormat: responseFormatOf(call),
      signal: call.abortSignal,
    };
    const given = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
    return this.#model.chat(messagesOf(call.prompt), { ...this.#defaults, ...given });
  }
}

async function* streamParts(
  generation: Generation,
  warnings: SharedV3Warning[],
  modelId: string,
): AsyncGenerator<LanguageModelV3StreamPart, undefined> {
  yield { type: 'stream-start', warnings };
  yield { type: 'response-metadata', modelId };
  const id = '0';
  yield { type: 'text-start', id };
  try {
    for await (const delta of generation) yield { type: 'text-delta', id, delta };
    yield { type: 'text-end', id };
    const { finishReason, usage } = await generation.result;
    yield { type: 'finish', finishReason: finishReasonOf(finishReason), usage: usageOf(usage) };
  } catch (error) {
    yield { type: 'error', error };
  }
  return undefined;
}

function messagesOf(prompt: LanguageModelV3Prompt): ChatMessage[] {
  return prompt.map((message) => {
    if (message.role === 'system') return { role: 'system', content: message.content };
    const content = message.content.map((part) => {
      if (part.type === 'text') return part.text;
      // What a model thought is not part of what it said.
      if (part.type === 'reasoning') return '';
      throw new UnsupportedFunctionalityError({
        functionality: `${part.type} parts in a ${message.role} message`,
      });
    });
    return { role: message.role, content: content.join('') };
  });
}

function responseFormatOf({ responseFormat }: LanguageModelV3CallOptions): ResponseFormat | undefined {
  if (responseFormat?.type !== 'json') return undefined;
  const { schema } = responseFormat;
  return schema === undefined ? { type: 'json_object' } : { type: 'json_schema', schema };
}

function warningsOf({ tools, toolChoice }: LanguageModelV3CallOptions): SharedV3Warning[] {
  const warnings: SharedV3Warning[] = [];
  if (tools !== undefined && tools.length > 0) warnings.push({ type: 'unsupported', feature: 'tools' });
  if (toolChoice !== undefined && toolChoice.type !== 'auto' && toolChoice.type !== 'none')
    warnings.push({ type: 'unsupported', feature: 'toolChoice' });
  return warnings;
}

function finishReasonOf(reason: FinishReason): LanguageModelV3FinishReason {
  if (reason === 'eos' || reason === 'stop') return { unified: 'stop', raw: reason };
  return { unified: reason === 'cancelled' ? 'other' : 'length', raw: reason };
}

function usageOf({ promptTokens, completionTokens, cachedPromptTokens }: Usage): LanguageModelV3Usage {
  return {
    inputTokens: {
      total: promptTokens,
      noCache: promptTokens - cachedPromptTokens,
      cacheRead: cachedPromptTokens,
      cacheWrite: undefined,
    },
    outputTokens: { total: completionTokens, text: completionTokens, reasoning: undefined },
  };
}
