/**
 * GET /v1/stats: what the server and its engine do at this moment, as JSON, for the dashboard and for people with curl.
 * Called by app.ts. With `?timeline=1` also the lanes' spans of a few steps.
 */
import type { PlanReport } from '../llm.js';
import type { Admission } from './admission.js';
import type { ServableModel } from './answers.js';
import type { LatencyWindow } from './latency-window.js';
import { busyShares, rates } from './rates.js';

export type LiveStatsParts = {
  model: ServableModel;
  name: string;
  admission: Admission;
  latencies: LatencyWindow;
  readBandwidthGBs: number | undefined;
};

export async function liveStats(parts: LiveStatsParts, timeline: boolean) {
  const { model, name, admission, latencies, readBandwidthGBs } = parts;
  const stats = await model.stats({ timeline });
  const { info } = model;
  const now = rates(stats, info);
  return {
    model: { name, ...about(info) },
    up_ms: stats.upMs,
    requests: {
      places_taken: admission.running,
      queued: admission.queued,
      running: stats.requests.running,
      waiting: stats.requests.waiting,
    },
    kv_blocks: stats.kvBlocks,
    total: stats.total,
    recent: {
      window_ms: stats.recent.windowMs,
      tokens_per_second: now.tokensPerSecond,
      prompt_tokens_per_second: now.promptTokensPerSecond,
      batch_size: now.batchSize,
      hit_rate: now.hitRate,
      transfer_gbs: now.transferGBs,
      weight_read_gbs: now.weightReadGBs,
      read_bandwidth_share: readBandwidthGBs ? now.weightReadGBs / readBandwidthGBs : null,
      read_bandwidth_gbs: readBandwidthGBs ?? null,
      busy: busyShares(stats, info),
      time_to_first_token_ms: latencies.median,
    },
    experts: {
      layers: stats.moeLayers,
      per_layer: stats.numExperts,
      tokens: [...stats.expertTokens],
      residents: stats.residents.map(({ layer, expert }) => [layer, expert]),
    },
    timeline: stats.timeline,
  };
}

function about(info: PlanReport) {
  const { architecture, layers, numExperts, numExpertsPerTok, units, gpu, isa, policy, prefetch } = info;
  return {
    architecture,
    layers,
    num_experts: numExperts,
    num_experts_per_tok: numExpertsPerTok,
    units,
    gpu,
    isa,
    policy,
    prefetch,
    expert_slots: info.expertSlots,
    max_context: info.maxContext,
  };
}
