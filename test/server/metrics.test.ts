/** /metrics and /v1/stats: that what they tell adds up. */
import { describe, expect, it } from 'vitest';
import { EngineCrashedError } from '../../src/errors.js';
import { scriptedServer, stats } from './scripted-model.js';

async function scrape(ask: (path: string) => Promise<Response>): Promise<Map<string, number>> {
  const text = await (await ask('/metrics')).text();
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]));
}

describe('/metrics', () => {
  it('counts each request once, by how it ended', async () => {
    const { model, chat, post, ask } = scriptedServer({ requestTimeoutMs: 30, onError: () => undefined });
    const completed = chat();
    (await model.started(0)).finish();
    await completed;
    await chat({ n: 'x' });
    await post('/v1/completions', '{');
    await chat();
    const leave = new AbortController();
    const left = chat({ stream: true }, { signal: leave.signal });
    (await model.started(2)).push('x');
    await (await left).body?.cancel();
    const failed = chat();
    (await model.started(3)).fail(new Error('broken'));
    await failed;
    const figures = await scrape(ask);
    const ended = (endpoint: string, outcome: string) =>
      figures.get(`nearmoe_requests_total{endpoint="${endpoint}",outcome="${outcome}"}`);
    expect(ended('chat', 'completed')).toBe(1);
    expect(ended('chat', 'invalid')).toBe(1);
    expect(ended('completions', 'invalid')).toBe(1);
    expect(ended('chat', 'timed_out')).toBe(1);
    expect(ended('chat', 'cancelled')).toBe(1);
    expect(ended('chat', 'failed')).toBe(1);
    expect(figures.get('nearmoe_request_duration_seconds_count')).toBe(6);
    expect(figures.get('nearmoe_tokens_total{kind="completion"}')).toBe(2);
    expect(figures.get('nearmoe_places_taken')).toBe(0);
    expect(figures.get('nearmoe_http_responses_total{route="/v1/chat/completions",status="200"}')).toBe(2);
  });

  it('gives the engine’s sums, batch sizes and rates, the same ones at every scrape', async () => {
    const { ask } = scriptedServer();
    await scrape(ask);
    const figures = await scrape(ask);
    const { total, recent } = stats;
    expect(figures.get('nearmoe_tokens_generated_total')).toBe(total.generatedTokens);
    expect(figures.get('nearmoe_device_busy_seconds_total{device="unit 1"}')).toBeCloseTo(0.012);
    expect(figures.get('nearmoe_device_busy_ratio{device="gpu"}')).toBeCloseTo(4 / 2000);
    expect(figures.get('nearmoe_batch_size_count')).toBe(3);
    expect(figures.get('nearmoe_batch_size_sum')).toBe(4);
    const most = ['1', '2', '128', '+Inf'].map((le) => figures.get(`nearmoe_batch_size_bucket{le="${le}"}`));
    expect(most).toEqual([2, 3, 3, 3]);
    expect(figures.get('nearmoe_expert_hit_ratio')).toBeCloseTo(18 / 24);
    expect(figures.get('nearmoe_transferred_bytes_total')).toBe(1_500_000);
    expect(figures.get('nearmoe_decode_tokens_per_second')).toBe(recent.generatedTokens / 2);
    expect(figures.get('nearmoe_kv_blocks_free_ratio')).toBe(0.75);
    expect(figures.get('nearmoe_engine_up')).toBe(1);
  });

  it('answers also when the engine is gone', async () => {
    const { model, ask } = scriptedServer();
    model.statsError = new EngineCrashedError('gone');
    expect((await scrape(ask)).get('nearmoe_engine_up')).toBe(0);
    expect((await ask('/v1/stats')).status).toBe(503);
  });

  it('needs a key where requests do', async () => {
    const { ask } = scriptedServer({ apiKeys: ['k'] });
    for (const path of ['/metrics', '/v1/stats']) expect((await ask(path)).status).toBe(401);
    expect((await ask('/metrics', { headers: { authorization: 'Bearer k' } })).status).toBe(200);
  });
});

it('/v1/stats tells experts, residents and shares', async () => {
  const { ask } = scriptedServer({ readBandwidthGBs: 10 });
  const body = await (await ask('/v1/stats?timeline=1')).json();
  // Of host memory the units read 40 experts of 100,000 bytes in 30 ms of steps.
  const weightReadGBs = 4e6 / 30e6;
  expect(body).toMatchObject({
    model: { name: 'm', units: 2, gpu: 'host' },
    recent: {
      tokens_per_second: 5,
      weight_read_gbs: weightReadGBs,
      read_bandwidth_share: weightReadGBs / 10,
      busy: { gpu: 0.002, 'unit 0': 0.004, 'unit 1': 0.006 },
      time_to_first_token_ms: null,
    },
    experts: { layers: [0, 1], per_layer: 4, tokens: [1, 2, 3, 4, 5, 6, 7, 8], residents: [[1, 2]] },
  });
});
