/**
 * Opens a GGUF file (or the first of a split one) as a model: the counterpart of the Hub folder in open-model.ts,
 * which calls it. Also finds the ids that end a text and the chat templates in the metadata.
 */
import { ChatTemplate, type ChatTemplateTexts } from '../chat-template.js';
import { mergeNames } from '../families/hub-names.js';
import type { GenerationConfig, SamplingDefaults } from '../generation-config.js';
import type { OpenedModel } from '../opened-model.js';
import type { Tokenizer } from '../tokenizer.js';
import { resolveWeights } from '../weights.js';
import { readGgufSpec } from './config.js';
import type { GgufMetadata } from './metadata.js';
import { GGUF_NAMES, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, ROPE_FREQS } from './names.js';
import { readGgufModel } from './split.js';
import { readGgufTokenizer } from './tokenizer.js';

/** Throws ModelFormatError and TokenizerError. */
export function openGguf(path: string): OpenedModel {
  const { metadata, tensors } = readGgufModel(path);
  const { family, spec } = readGgufSpec(metadata, tensors);
  const tokenizer = readGgufTokenizer(metadata, spec.vocabSize);
  const ignored = [ROPE_FREQS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT];
  return {
    path,
    source: 'gguf',
    spec,
    weights: resolveWeights(spec, mergeNames(family.gguf?.names ?? {}, GGUF_NAMES), tensors, {
      path,
      ignored,
      extraLayers: metadata.integer(`${metadata.text('general.architecture')}.nextn_predict_layers`) ?? 0,
    }),
    tensors,
    tokenizer,
    chatTemplate: new ChatTemplate(readTemplates(metadata), tokenizer.specialTokens),
    generation: readGeneration(metadata, tokenizer),
  };
}

function readTemplates(metadata: GgufMetadata): ChatTemplateTexts {
  const texts: Record<string, string> = {};
  const main = metadata.text('tokenizer.chat_template');
  if (main !== undefined) texts.default = main;
  for (const name of metadata.texts('tokenizer.chat_templates') ?? []) {
    const text = metadata.text(`tokenizer.chat_template.${name}`);
    if (text !== undefined) texts[name] = text;
  }
  return texts;
}

/** Tokens that end a turn in the chat formats of published models; metadata has room for one or two of them only. */
const END_TEXTS = [
  ...['<|im_end|>', '<|endoftext|>', '<|end_of_text|>', '<|eot_id|>', '<|eom_id|>', '<|end|>', '<|return|>'],
  ...[
    '<|eot|>',
    '<|eom|>',
    '<turn|>',
    '<|call|>',
    '<end_of_turn>',
    '<end_of_utterance>',
    '<EOT>',
    '<\uff5cend\u2581of\u2581sentence\uff5c>',
  ],
];

function readGeneration(metadata: GgufMetadata, tokenizer: Tokenizer): GenerationConfig {
  const ids = new Set<number>();
  for (const name of ['eos', 'eot', 'eom']) {
    const id = metadata.integer(`tokenizer.ggml.${name}_token_id`, 0, 2 ** 32 - 1);
    if (id !== undefined && tokenizer.tokenText(id) !== undefined) ids.add(id);
  }
  for (const text of END_TEXTS) {
    const id = tokenizer.tokenId(text);
    if (id !== undefined && tokenizer.isSpecial(id)) ids.add(id);
  }
  return { eosTokenIds: [...ids].sort((a, b) => a - b), sampling: readSampling(metadata) };
}

/** Absent values stay absent: the engine has its own defaults for them. */
function readSampling(metadata: GgufMetadata): SamplingDefaults {
  const key = (name: string) => metadata.number(`general.sampling.${name}`);
  const values: SamplingDefaults = {
    temperature: key('temp'),
    topK: key('top_k'),
    topP: key('top_p'),
    minP: key('min_p'),
    repetitionPenalty: key('penalty_repeat'),
  };
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}
