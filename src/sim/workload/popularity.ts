/**
 * What an offline profile would find popular: the (layer, expert) pairs by how often the whole load chooses them, seen
 * through a profile of other prompts, which agrees with the load only in part. Used for systems that fix their
 * placement beforehand (Fiddler).
 */
import type { RoutingRecord } from '../../engine/result.js';
import { normals, randomBits } from './random.js';

/**
 * Weight of what a profile of other prompts gets wrong, in standard deviations of the counts: brings the top quarter's
 * coverage from 0.66 to 0.47 as in gpt-oss-20b, where statistics came from other prompts.
 */
const OTHER_PROMPTS = 1;

/** Pairs, most popular first. */
export function popularPairs(
  requests: readonly RoutingRecord[],
  seed: number,
): { layer: number; expert: number }[] {
  const [first] = requests;
  if (first === undefined) return [];
  const { layers, topK, numExperts } = first;
  const counts = new Float64Array(layers.length * numExperts);
  for (const { ids } of requests) {
    for (let i = 0; i < ids.length; i++) {
      const key = (Math.floor(i / topK) % layers.length) * numExperts + (ids[i] as number);
      counts[key] = (counts[key] as number) + 1;
    }
  }
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  const deviation = Math.sqrt(counts.reduce((sum, count) => sum + (count - mean) ** 2, 0) / counts.length);
  const normal = normals(randomBits(seed + 7));
  const seen = counts.map((count) => count + OTHER_PROMPTS * deviation * normal());
  return [...seen.keys()]
    .sort((left, right) => (seen[right] ?? 0) - (seen[left] ?? 0))
    .map((key) => ({ layer: layers[Math.floor(key / numExperts)] ?? 0, expert: key % numExperts }));
}
