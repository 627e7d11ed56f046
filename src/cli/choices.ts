/**
 * The policies, prefetchers and cache rules that exist, as --help lists them. Called by main.ts.
 */
import { evictionEntries } from '../placement/eviction.js';
import { prefetchNames, schedulerEntries } from '../schedule/registry.js';
import { wrap } from './format.js';

const NAME_WIDTH = 18;
const TEXT_WIDTH = 78 - NAME_WIDTH;

/** Text that stands behind the options in --help. */
export function choicesText(): string {
  return [
    '',
    'Policies:',
    ...schedulerEntries().flatMap(entryLines),
    '',
    `Prefetch: ${prefetchNames().join(', ')}`,
    '',
    'Cache policies:',
    ...evictionEntries().flatMap(entryLines),
  ].join('\n');
}

function entryLines({ name, description }: { name: string; description: string }): string[] {
  return wrap(description, TEXT_WIDTH).map(
    (line, index) => `  ${(index === 0 ? name : '').padEnd(NAME_WIDTH)}${line}`,
  );
}
