/**
 * The list of all families, and the choice of one for a config.json. A new family is added here and nowhere else.
 */
import type { ConfigReader } from '../config.js';
import { deepseekV2, deepseekV3, glm4MoeLite } from './deepseek.js';
import { ernie45Moe } from './ernie4-5-moe.js';
import type { Family } from './family.js';
import { gemma4 } from './gemma4.js';
import { glm4Moe } from './glm4-moe.js';
import { gptOss } from './gpt-oss.js';
import { granitemoe } from './granitemoe.js';
import { lfm2Moe } from './lfm2-moe.js';
import { llama4 } from './llama4.js';
import { minimaxM2 } from './minimax-m2.js';
import { mixtral } from './mixtral.js';
import { olmoe } from './olmoe.js';
import { phimoe } from './phimoe.js';
import { qwen2Moe } from './qwen2-moe.js';
import { qwen3Moe } from './qwen3-moe.js';
import { qwen3Next, qwen35Moe } from './qwen3-next.js';
import { textConfig, wrappedNames } from './text-config.js';

export const FAMILIES: readonly Family[] = [
  qwen3Moe,
  qwen2Moe,
  mixtral,
  olmoe,
  phimoe,
  granitemoe,
  glm4Moe,
  ernie45Moe,
  minimaxM2,
  gptOss,
  deepseekV2,
  deepseekV3,
  glm4MoeLite,
  llama4,
  gemma4,
  qwen3Next,
  qwen35Moe,
  lfm2Moe,
];

/** A family as the wrapping model's checkpoints hold it; undefined where there are none. */
function wrapped(family: Family): Family | undefined {
  const { wrapper } = family;
  if (wrapper === undefined) return undefined;
  return {
    ...family,
    modelType: wrapper.modelType,
    className: wrapper.className,
    readSpec: (config) => {
      const text = textConfig(config);
      const inner = text.find('model_type');
      if (inner !== undefined && inner.value !== family.modelType && inner.value !== wrapper.modelType) {
        throw config.contradiction('model_type', wrapper.modelType, text.label('model_type'), inner.value);
      }
      return family.readSpec(text);
    },
    hubNames: wrappedNames(family.hubNames, wrapper),
    unusedPrefixes: wrapper.unusedPrefixes,
  };
}

/** All that `model_type` can name. */
const CHOICES: readonly Family[] = [...FAMILIES, ...FAMILIES.flatMap((family) => wrapped(family) ?? [])];

/**
 * The family that `model_type` (or, without it, `architectures`) names, seen through its wrapping model where that is
 * named. Throws ModelFormatError: ERR_MODEL_UNSUPPORTED with the list of known families, or a contradiction between the
 * two keys.
 */
export function familyOf(config: ConfigReader): Family {
  const known = CHOICES.map((family) => family.modelType).join(', ');
  const byClass = CHOICES.find((family) => config.texts('architectures', []).includes(family.className));
  if (!config.has('model_type')) {
    if (byClass !== undefined) return byClass;
    throw config.unsupported('model_type', `one of ${known}`, undefined);
  }
  const modelType = config.text('model_type', undefined);
  if (byClass?.otherModelTypes?.includes(modelType)) return byClass;
  const family = CHOICES.find((candidate) => candidate.modelType === modelType);
  if (family === undefined) {
    throw config.unsupported(
      'model_type',
      `one of ${known}`,
      modelType,
      'docs/adding-a-model.md shows how to add one.',
    );
  }
  if (byClass !== undefined && byClass !== family) {
    throw config.contradiction('model_type', modelType, 'architectures', byClass.className);
  }
  return family;
}
