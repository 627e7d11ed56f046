/**
 * Routing profiles by name: knobs of the synthetic generator, each fitted to the statistics of one real model, which
 * stand beside them for the test. Read by the suites and `sim`.
 */
import { fileURLToPath } from 'node:url';
import { OptionError } from '../../errors.js';
import { type DataNode, readDataFile } from '../data-file.js';
import type { RoutingStatistics } from './statistics.js';
import type { RoutingKnobs } from './synthetic.js';

export type RoutingProfile = {
  id: string;
  title: string;
  knobs: RoutingKnobs;
  /** The model that the knobs were fitted to. */
  shape: { experts: number; topK: number; tokens: number };
  statistics: RoutingStatistics;
};

const file = fileURLToPath(new URL('./profiles.json', import.meta.url));

/** Throws ModelFormatError. */
export function readProfiles(from = file): readonly RoutingProfile[] {
  return readDataFile(from).nodes('profiles').map(readProfile);
}

/** Throws OptionError for an unknown id. */
export function profileById(profiles: readonly RoutingProfile[], id: string): RoutingProfile {
  const found = profiles.find((profile) => profile.id === id);
  if (found === undefined) {
    throw new OptionError('profile', `one of ${profiles.map((profile) => `"${profile.id}"`).join(', ')}`, id);
  }
  return found;
}

function readProfile(node: DataNode): RoutingProfile {
  node.text('source');
  const shape = node.node('shape');
  const knobs = node.node('knobs');
  const statistics = node.node('statistics');
  return {
    id: node.text('id'),
    title: node.text('title'),
    shape: {
      experts: shape.integer('experts', 1),
      topK: shape.integer('topK', 1),
      tokens: shape.integer('tokens', 2),
    },
    knobs: {
      skew: knobs.number('skew'),
      tail: knobs.number('tail'),
      topic: knobs.number('topic'),
      topicTokens: knobs.number('topicTokens', Number.MIN_VALUE),
      reuseTokens: knobs.number('reuseTokens', Number.MIN_VALUE),
    },
    statistics: {
      variation: statistics.number('variation'),
      reuse: statistics.number('reuse'),
      correlation: statistics.number('correlation'),
      coverage: statistics.numbers('coverage'),
      bestQuarter: statistics.number('bestQuarter'),
      lruHits: statistics.numbers('lruHits'),
    },
  };
}
