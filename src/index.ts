/**
 * The public names of the package and nothing else. What they do is told where they are defined.
 */
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
