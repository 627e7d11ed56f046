/** What opening a model yields, whatever its format: made by open-model.ts and gguf/open-gguf.ts. */
import type { ChatTemplate } from './chat-template.js';
import type { GenerationConfig } from './generation-config.js';
import type { ModelSpec, WeightSource } from './model-spec.js';
import type { TensorIndex } from './tensor-index.js';
import type { Tokenizer } from './tokenizer.js';

export type OpenedModel = {
  /** As given. */
  path: string;
  source: 'hub' | 'gguf' | 'synthetic';
  spec: ModelSpec;
  /** One entry for each weight of the spec, in the order of computation. */
  weights: WeightSource[];
  /** Where the tensors that `weights` names lie. */
  tensors: TensorIndex;
  tokenizer: Tokenizer;
  chatTemplate: ChatTemplate;
  generation: GenerationConfig;
};
