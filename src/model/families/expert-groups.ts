/**
 * The routing keys that DeepSeek-V3 brought and GLM, Kimi and others took over: groups of experts of which only the
 * best may be chosen from, and a factor on the chosen weights. Called by those families.
 */
import type { ConfigReader } from '../config.js';
import type { RouterSpec } from '../model-spec.js';

export type ExpertGroupDefaults = {
  numGroups: number;
  chosenGroups: number;
  score: 'max' | 'top-two-sum';
};

/** `n_group`, `topk_group`; undefined where experts are not grouped. Throws ModelFormatError. */
export function readExpertGroups(
  config: ConfigReader,
  counts: { numExperts: number; numExpertsPerTok: number },
  defaults: ExpertGroupDefaults,
): RouterSpec['groups'] {
  const { numExperts, numExpertsPerTok } = counts;
  const count = config.integer('n_group', defaults.numGroups);
  const chosen = config.integer('topk_group', defaults.chosenGroups);
  if (numExperts % count !== 0) {
    throw config.contradiction('n_group', count, 'n_routed_experts', numExperts);
  }
  if (chosen > count) throw config.contradiction('n_group', count, 'topk_group', chosen);
  if ((numExperts / count) * chosen < numExpertsPerTok) {
    throw config.contradiction('topk_group', chosen, 'num_experts_per_tok', numExpertsPerTok);
  }
  return count === 1 ? undefined : { count, chosen, score: defaults.score };
}
