/**
 * The public names of the package and nothing else. What they do is told where they are defined.
 */
export * from './errors.js';
export * from './llm.js';
export type {
  ChatMessage,
  ChatOptions,
  GenerateOptions,
  GenerateProgress,
  LoadOptions,
  LoadProgress,
  Prompt,
} from './options.js';
