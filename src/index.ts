/**
 * The public names of the package and nothing else. What they do is told where they are defined.
 */

export type { DeviceInfo, TimedOp } from './device/device.js';
export type { ChatSession, ChatSessionOptions } from './engine/chat-session.js';
export type { EngineEvent, RequestEvent } from './engine/diagnostics.js';
export type { ModelFacts, WeightKind } from './engine/model-facts.js';
export {
  AbortedError,
  AddonLoadError,
  ChatTemplateError,
  DeviceError,
  DisposedError,
  EngineCrashedError,
  type ErrorCode,
  type ErrorDetails,
  MemoryError,
  type ModelFormatDetails,
  ModelFormatError,
  NearmoeError,
  OptionError,
  OutputError,
  PromptError,
  TokenizerError,
} from './errors.js';
export type { PartFormat, ResponseFormat } from './grammar/response-format.js';
export * from './llm.js';
export type { ReasoningStyle } from './model/reasoning-style.js';
export type { MarkedCallKind, ToolCallStyle } from './model/tool-call-style.js';
export type { QuantizeFormat } from './options/quantize-formats.js';
export type {
  ChatMessage,
  ChatOptions,
  ChatTemplateOptions,
  EngineOptions,
  GenerateOptions,
  GenerateProgress,
  KvDtype,
  LoadOptions,
  LoadProgress,
  Prompt,
  RequestOptions,
} from './options.js';
