/**
 * Everything about a model that can be known without reading its weights: opens a folder of the Hub's format or a
 * GGUF file, checks it, and returns spec, weight sources, tokenizer and templates. Called by the engine's worker, by
 * `inspect` and by `plan`. Maps and copies no weights.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { ModelFormatError } from '../errors.js';
import type { QuantizeFormat } from '../options/quantize-formats.js';
import { ChatTemplate, type ChatTemplateTexts, readTemplateTexts } from './chat-template.js';
import { ConfigReader } from './config.js';
import { familyOf } from './families/registry.js';
import { textConfig } from './families/text-config.js';
import { readGenerationConfig } from './generation-config.js';
import { openGguf } from './gguf/open-gguf.js';
import { readJsonObject, readTextFile } from './json-file.js';
import type { OpenedModel } from './opened-model.js';
import { quantizeWeights } from './quantize-weights.js';
import { readSafetensorsFolder } from './safetensors-folder.js';
import { isSynthetic, openSynthetic } from './synthetic.js';
import { Tokenizer } from './tokenizer.js';
import { resolveWeights } from './weights.js';

export type { OpenedModel } from './opened-model.js';

/**
 * Opens and checks a model; with `quantize` its weights say what they are quantised to. Throws OptionError, ModelFormatError (ERR_MODEL_NOT_FOUND, ERR_MODEL_FORMAT, ERR_MODEL_UNSUPPORTED,
 * ERR_WEIGHT_MISSING, ERR_WEIGHT_SURPLUS) and TokenizerError.
 */
export function openModel(path: string, quantize?: QuantizeFormat): OpenedModel {
  const opened = openAsStored(path);
  return quantize === undefined ? opened : quantizeWeights(opened, quantize);
}

function openAsStored(path: string): OpenedModel {
  if (isSynthetic(path)) return openSynthetic(path);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) {
    throw new ModelFormatError({
      code: 'ERR_MODEL_NOT_FOUND',
      file: path,
      expected: 'a model folder or a .gguf file',
      got: 'nothing at this path',
    });
  }
  return stat.isDirectory() ? openHubFolder(path) : openGguf(path);
}

/** Layers for multi-token prediction; published checkpoints have one to three. */
const MAX_EXTRA_LAYERS = 64;

function openHubFolder(folder: string): OpenedModel {
  const configPath = join(folder, 'config.json');
  const values = readJsonObject(configPath);
  if (values === undefined) {
    throw new ModelFormatError({
      code: 'ERR_MODEL_NOT_FOUND',
      file: configPath,
      expected: "the model's configuration",
      got: 'no such file',
    });
  }
  const outer = new ConfigReader(values, configPath);
  const family = familyOf(outer);
  const spec = family.readSpec(outer);
  const config = textConfig(outer);
  const tokenizer = Tokenizer.fromFolder(folder);
  const tensors = readSafetensorsFolder(folder);
  const generationPath = join(folder, 'generation_config.json');
  const generation = readJsonObject(generationPath);
  return {
    path: folder,
    source: 'hub',
    spec,
    weights: resolveWeights(spec, family.hubNames, tensors, {
      path: folder,
      unusedPrefixes: family.unusedPrefixes,
      extraLayers: config.integer('num_nextn_predict_layers', 0, { min: 0, max: MAX_EXTRA_LAYERS }),
    }),
    tensors,
    tokenizer,
    chatTemplate: new ChatTemplate(readChatTemplates(folder), tokenizer.specialTokens),
    generation: readGenerationConfig(
      generation && new ConfigReader(generation, generationPath),
      config,
      tokenizer.specialTokenId('eos_token'),
    ),
  };
}

/** chat_template.jinja goes before tokenizer_config.json, as in transformers. */
function readChatTemplates(folder: string): ChatTemplateTexts {
  const text = readTextFile(join(folder, 'chat_template.jinja'));
  if (text !== undefined) return { default: text };
  const configPath = join(folder, 'tokenizer_config.json');
  return readTemplateTexts(readJsonObject(configPath)?.chat_template, configPath);
}
