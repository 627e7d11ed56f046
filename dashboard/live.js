/**
 * The answer of GET /v1/stats as the page knows it (made by src/server/live-stats.ts). Types only.
 *
 * @typedef {{ lane: string, name: string, layer: number, startUs: number, endUs: number }} Span
 * @typedef {{ startUs: number, endUs: number, sequences: number, spans: Span[] }} Step
 * @typedef {{
 *   model: {
 *     name: string, architecture: string, layers: number, num_experts: number, num_experts_per_tok: number,
 *     units: number, gpu: string, isa: string, policy: string, expert_slots: number, max_context: number,
 *   },
 *   requests: { places_taken: number, queued: number, running: number, waiting: number },
 *   kv_blocks: { total: number, free: number },
 *   recent: {
 *     tokens_per_second: number, prompt_tokens_per_second: number, batch_size: number, hit_rate: number,
 *     transfer_gbs: number, weight_read_gbs: number, read_bandwidth_share: number | null,
 *     read_bandwidth_gbs: number | null, busy: Record<string, number>, time_to_first_token_ms: number | null,
 *   },
 *   total: { experts: { hits: number, misses: number } },
 *   experts: { layers: number[], per_layer: number, tokens: number[], residents: [number, number][] },
 *   timeline: Step[],
 * }} Live
 */
export {};
