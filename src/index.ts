/**
 * The public names of the package and nothing else. What they do is told where they are defined.
 */

export type { ChatSession, ChatSessionOptions } from './engine/chat-session.js';
export type { EngineEvent, RequestEvent } from './engine/diagnostics.js';
export type { ModelFacts } from './engine/model-facts.js';
export {
  AbortedError,
  AddonLoadError,
  ChatTemplateError,
  DeviceError,
  DisposedError,
  EngineCrashedError,
  type ErrorCode,
  MemoryError,
  ModelFormatError,
  NearmoeError,
  OptionError,
  OutputError,
  PromptError,
  TokenizerError,
} from './errors.js';
export type { ResponseFormat } from './grammar/response-format.js';
export * from './llm.js';
export type {
  ChatMessage,
  ChatOptions,
  EngineOptions,
  GenerateOptions,
  GenerateProgress,
  LoadOptions,
  LoadProgress,
  Prompt,
  RequestOptions,
} from './options.js';
