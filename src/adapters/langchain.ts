/**
 * `nearmoe/langchain`: a loaded model as a chat model of LangChain.js, for invoke, stream and chains. Text in and out,
 * JSON by schema through the call option `responseFormat`; other kinds of content are refused. @langchain/core is an
 * optional peer.
 */
import type { CallbackManagerForLLMRun } from '@langchain/core/callbacks/manager';
import {
  BaseChatModel,
  type BaseChatModelCallOptions,
  type BaseChatModelParams,
} from '@langchain/core/language_models/chat_models';
import { AIMessage, AIMessageChunk, type BaseMessage, type UsageMetadata } from '@langchain/core/messages';
import { ChatGenerationChunk, type ChatResult } from '@langchain/core/outputs';
import { OptionError } from '../errors.js';
import type { Generation, Model, Usage } from '../llm.js';
import type { ChatMessage, ChatOptions } from '../options.js';

/** LangChain's own (`stop`, `signal`, ...), and all of nearmoe's. */
export type ChatNearmoeCallOptions = BaseChatModelCallOptions &
  Omit<ChatOptions, 'stop' | 'signal' | 'tools'>;

export type ChatNearmoeFields = BaseChatModelParams & {
  /** Answers; stays the caller's to dispose. */
  model: Model;
  /** Options of every call, which the call's own replace. */
  defaults?: ChatOptions;
};

/** Options of ours that a call may carry; the rest is LangChain's. */
const OPTIONS = [
  ...['maxTokens', 'temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'frequencyPenalty'],
  ...[
    'presencePenalty',
    'logitBias',
    'seed',
    'stop',
    'ignoreEos',
    'responseFormat',
    'variables',
    'signal',
    'onProgress',
  ],
];

const ROLES: Readonly<Record<string, string>> = {
  human: 'user',
  ai: 'assistant',
  system: 'system',
  tool: 'tool',
};

export class ChatNearmoe extends BaseChatModel<ChatNearmoeCallOptions> {
  #model: Model;
  #defaults: ChatOptions;

  constructor({ model, defaults = {}, ...fields }: ChatNearmoeFields) {
    super(fields);
    this.#model = model;
    this.#defaults = defaults;
  }

  static override lc_name(): string {
    return 'ChatNearmoe';
  }

  _llmType(): string {
    return 'nearmoe';
  }

  async _generate(
    messages: BaseMessage[],
    options: this['ParsedCallOptions'],
    runManager?: CallbackManagerForLLMRun,
  ): Promise<ChatResult> {
    const generation = this.#start(messages, options);
    for await (const text of generation) await runManager?.handleLLMNewToken(text);
    const { text, usage, finishReason } = await generation.result;
    const message = new AIMessage({
      content: text,
      usage_metadata: usageOf(usage),
      response_metadata: {
        finishReason,
        model_provider: 'nearmoe',
        model_name: this.#model.info.architecture,
      },
    });
    return { generations: [{ text, message, generationInfo: { finishReason } }] };
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this['ParsedCallOptions'],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const generation = this.#start(messages, options);
    for await (const text of generation) {
      const chunk = new ChatGenerationChunk({ text, message: new AIMessageChunk({ content: text }) });
      yield chunk;
      await runManager?.handleLLMNewToken(text, undefined, undefined, undefined, undefined, { chunk });
    }
    const { usage, finishReason } = await generation.result;
    const last = { content: '', usage_metadata: usageOf(usage), response_metadata: { finishReason } };
    yield new ChatGenerationChunk({
      text: '',
      message: new AIMessageChunk(last),
      generationInfo: { finishReason },
    });
  }

  #start(messages: readonly BaseMessage[], options: this['ParsedCallOptions']): Generation {
    const given = Object.entries(options).filter(
      ([name, value]) => OPTIONS.includes(name) && value !== undefined,
    );
    return this.#model.chat(messages.map(messageOf), { ...this.#defaults, ...Object.fromEntries(given) });
  }
}

function messageOf(message: BaseMessage): ChatMessage {
  const type = message.getType();
  const role = ROLES[type];
  if (role === undefined) throw new OptionError('messages', 'messages of system, human, ai or tool', type);
  return { role, content: textOf(message) };
}

function textOf({ content }: BaseMessage): string {
  if (typeof content === 'string') return content;
  return content
    .map((part) => {
      if (part.type === 'text' && typeof part.text === 'string') return part.text;
      throw new OptionError('messages', 'content of text alone', part.type);
    })
    .join('');
}

function usageOf({ promptTokens, completionTokens, totalTokens, cachedPromptTokens }: Usage): UsageMetadata {
  return {
    input_tokens: promptTokens,
    output_tokens: completionTokens,
    total_tokens: totalTokens,
    input_token_details: { cache_read: cachedPromptTokens },
  };
}
