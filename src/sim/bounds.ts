/**
 * The bandwidth bound: a time that no schedule on the box can undercut, whatever it knows. Every step reads each dense
 * weight on the GPU and each active expert where it is computed, at nominal rates, without launches, latencies or
 * imbalance; the prompts' experts are either computed near memory or cross the link first. Used by run-point.ts and
 * `plan`. Requests of a batch are taken to be computed in step, which reads each weight as seldom as possible.
 */
import type { RoutingRecord } from '../engine/result.js';
import { ratesOf } from './gpu-times.js';
import type { Box } from './modeled-times.js';
import type { ModelShape } from './models.js';

/** Least time until all requests are done, microseconds. */
export function bandwidthBoundUs(model: ModelShape, box: Box, requests: readonly RoutingRecord[]): number {
  return promptBoundUs(model, box, requests) + answerBoundUs(model, box, requests);
}

/** Decode: dense weights and KV on the GPU, then each layer's experts on all memories together. */
export function answerBoundUs(model: ModelShape, box: Box, requests: readonly RoutingRecord[]): number {
  const gpu = ratesOf(box.gpu);
  const expertRate = gpu.bytesPerUs + unitRates(box).bytesPerUs;
  const weightBytes = layerBytes(model) + model.headBytes;
  const kvBytesPerToken = model.layers.reduce((sum, layer) => sum + layer.kvBytesPerToken, 0);
  const longest = Math.max(0, ...requests.map(({ tokens, promptTokens }) => tokens - promptTokens));
  let timeUs = 0;
  for (let step = 0; step < longest - 1; step++) {
    const running = requests.filter(({ tokens, promptTokens }) => promptTokens + step < tokens - 1);
    const context = running.reduce((sum, { promptTokens }) => sum + promptTokens + step + 1, 0);
    const active = activeExperts(running, step);
    timeUs += (weightBytes + context * kvBytesPerToken) / gpu.bytesPerUs;
    timeUs += (active * model.expertBytes) / expertRate;
  }
  return timeUs;
}

/** Prompts: dense work on the GPU; of the experts the hottest cross the link, the others stay with the units. */
export function promptBoundUs(model: ModelShape, box: Box, requests: readonly RoutingRecord[]): number {
  const gpu = ratesOf(box.gpu);
  const units = unitRates(box);
  const tokens = requests.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
  const denseFlops = (2 * tokens * layerBytes(model)) / model.bytesPerDenseWeight;
  const denseUs = Math.max(layerBytes(model) / gpu.bytesPerUs, denseFlops / gpu.flopsPerUs);
  const counts = promptCounts(requests);
  const unitUs = (count: number) =>
    Math.max(model.expertBytes / units.bytesPerUs, (count * model.expertFlops) / units.flopsPerUs);
  const linkUs = model.expertBytes / (box.gpu.hostToDeviceGBs * 1e3);
  let restUs = counts.reduce((sum, count) => sum + unitUs(count), 0);
  let bestUs = restUs;
  counts.forEach((count, index) => {
    restUs -= unitUs(count);
    bestUs = Math.min(bestUs, Math.max(restUs, (index + 1) * linkUs));
  });
  return denseUs + bestUs;
}

/** Weights of all layers beside routed experts. */
function layerBytes(model: ModelShape): number {
  return model.layers.reduce(
    (sum, layer) => sum + layer.attentionBytes + layer.feedForwardBytes + layer.sharedBytes,
    0,
  );
}

/** (layer, expert) pairs that the answers' tokens number `step` choose together. */
function activeExperts(requests: readonly RoutingRecord[], step: number): number {
  const [first] = requests;
  if (first === undefined) return 0;
  const { layers, topK, numExperts } = first;
  if (requests.length === 1) return layers.length * topK;
  const seen = new Set<number>();
  for (const { promptTokens, ids } of requests) {
    const from = (promptTokens + step) * layers.length * topK;
    for (let i = 0; i < layers.length * topK; i++) {
      seen.add(Math.floor(i / topK) * numExperts + (ids[from + i] as number));
    }
  }
  return seen.size;
}

/** Tokens of each (layer, expert) pair that the prompts activate, descending. */
function promptCounts(requests: readonly RoutingRecord[]): number[] {
  const [first] = requests;
  if (first === undefined) return [];
  const { layers, topK, numExperts } = first;
  const counts = new Int32Array(layers.length * numExperts);
  for (const { promptTokens, ids } of requests) {
    const pairs = promptTokens * layers.length * topK;
    for (let i = 0; i < pairs; i++) {
      const key = (Math.floor(i / topK) % layers.length) * numExperts + (ids[i] as number);
      counts[key] = (counts[key] as number) + 1;
    }
  }
  return [...counts.filter((count) => count > 0)].sort((left, right) => right - left);
}

function unitRates({ unit, units }: Box): { bytesPerUs: number; flopsPerUs: number } {
  return { bytesPerUs: units * unit.bandwidthGBs * 1e3, flopsPerUs: units * unit.gflops * 1e3 };
}
