/**
 * The bench command's arithmetic: bytes and products by formula against figures worked out by hand, shares of
 * ceilings, stages of a timeline, lines of 80 columns, refused options. Speed itself is not tested.
 */
import { describe, expect, test } from 'vitest';
import { readBufferBytes } from '../../../src/cli/bench/machine.js';
import { benchLines, benchReport, type Measurements } from '../../../src/cli/bench/report.js';
import { freshPrompts, stagesOf } from '../../../src/cli/bench/runs.js';
import { workloadOf } from '../../../src/cli/bench/workload.js';
import { runCli } from '../../../src/cli/main.js';
import { TIMED_OPS } from '../../../src/device/device.js';
import type { OpTimesMs } from '../../../src/llm.js';
import { openModel } from '../../../src/model/open-model.js';
import { fakeContext, info } from './fake-model.js';

const olmoe = openModel('synthetic:olmoe-1b-7b:q4_0');
const shape = { promptTokens: 512, genTokens: 128, batch: 1 };
const opMs = Object.fromEntries(TIMED_OPS.map((op) => [op, 0])) as OpTimesMs;
const stages = { ...opMs, qkv: 1, gateUp: 5, lmHead: 2, otherNativeMs: 1, orchestrationMs: 1 };

const measured: Measurements = {
  model: 'synthetic:olmoe-1b-7b:q4_0',
  shape,
  info: { ...info, isa: 'amx' },
  workload: {
    weightBytesPerStep: 9e8,
    kvBytesPerStep: 1e8,
    matmulMacs: 512e9,
    attentionMacs: 1,
    int8Share: 0.99,
  },
  repetitions: [
    { prefillTokensPerSecond: 100, decodeTokensPerSecond: 10, timeToFirstTokenMs: 5120 },
    { prefillTokensPerSecond: 300, decodeTokensPerSecond: 30, timeToFirstTokenMs: 1707 },
    { prefillTokensPerSecond: 200, decodeTokensPerSecond: 20, timeToFirstTokenMs: 2560 },
  ],
  ceilings: [20, 20, 40, 40].map((rate) => ({ readBandwidthGBs: rate, int8GMACs: 10 * rate, floatGMACs: 1 })),
  peaks: { avx512: { int8GMACs: 100, floatGMACs: 20 } },
  bufferBytes: 1e9,
  stages: { prefill: stages, decode: stages },
  memory: { peakBytes: 1.1e9, heldBytes: 1e9 },
  loadMs: 1234,
};

describe('workload', () => {
  // Q4_0 is 18 bytes for 32 values, Q6_K 210 for 256. 16 layers of 4 square matrices and 8 experts of 3 matrices.
  const layers = 16 * (4 * 2048 * 2048 + 8 * 3 * 1024 * 2048) * (18 / 32);
  const floats = (16 * (64 * 2048 + 4 * 2048) + 2048) * 4;

  test('a decode step of OLMoE reads what its shapes say', () => {
    const { weightBytesPerStep, kvBytesPerStep } = workloadOf(olmoe, shape, 'f16');
    const head = (50304 * 2048 * 210) / 256;
    expect(weightBytesPerStep).toBe(layers + floats + head + (2048 * 18) / 32);
    expect(kvBytesPerStep).toBe((512 + 64) * 16 * 2 * 2048 * 2);
  });

  test('a batch reads more experts but the dense matrices once', () => {
    const one = workloadOf(olmoe, shape, 'f16').weightBytesPerStep;
    const eight = workloadOf(olmoe, { ...shape, batch: 8 }, 'f16').weightBytesPerStep;
    const expert = 16 * 3 * 1024 * 2048 * (18 / 32);
    const distinct = 64 * (1 - (7 / 8) ** 8);
    expect(eight - one).toBeCloseTo((distinct - 8) * expert + (7 * 2048 * 18) / 32, -1);
  });

  test('a prefill multiplies every token by its experts and one by lm_head', () => {
    const { matmulMacs, attentionMacs, int8Share } = workloadOf(olmoe, shape, 'f16');
    const perToken = 16 * (4 * 2048 * 2048 + 8 * 3 * 1024 * 2048 + 64 * 2048);
    expect(matmulMacs).toBe(512 * perToken + 50304 * 2048);
    expect(attentionMacs).toBe(16 * 2048 * 512 * 513);
    expect(int8Share).toBeCloseTo(1 - (512 * 16 * 64 * 2048) / matmulMacs, 12);
  });
});

describe('report', () => {
  test('puts rates beside the ceilings measured around them', () => {
    const report = benchReport(measured);
    expect(report.prefillTokensPerSecond).toEqual({ median: 200, min: 100, max: 300 });
    expect(report.decodeTokensPerSecond).toEqual({ median: 20, min: 10, max: 30 });
    expect(report.reached.decodeBandwidthGBs).toEqual({ median: 20, min: 10, max: 30 });
    expect(report.reached.prefillGMACs).toEqual({ median: 200, min: 100, max: 300 });
    // 10 of 20, 30 of the mean of 20 and 40, 20 of 40.
    expect(report.shares.decodeBandwidth).toBe(0.5);
    expect(report.shares.prefillPeak).toBe(0.5);
    expect(report.shares.prefillVnni).toBe(2);
    expect(report.orchestrationShare).toBeCloseTo(0.1, 12);
    expect(report.memory.ratio).toBeCloseTo(1.1, 12);
  });

  test('fits 80 columns', () => {
    const lines = benchLines(benchReport(measured));
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80);
    expect(lines.join('\n')).toMatch(/^ {2}gateUp +50\.0% +50\.0% +0\.039$/m);
    expect(lines.join('\n')).toMatch(/^decode, tokens\/s +20\.0 +10\.0 +30\.0$/m);
  });

  test('stages of a timeline add up to its length', () => {
    const span = (lane: string, name: string, startUs: number, endUs: number) => ({
      lane,
      name,
      layer: -1,
      startUs,
      endUs,
    });
    const spans = [
      span('engine', 'step', 0, 9000),
      span('unit 0', 'layers', 500, 6000),
      span('unit 1', 'layers', 400, 6000),
      span('unit 0', 'logits', 6000, 8000),
      span('engine', 'sample', 9000, 10000),
    ];
    const found = stagesOf(spans, { ...opMs, attention: 1, down: 3, barrier: 2 });
    expect(found).toMatchObject({ ...opMs, attention: 1, down: 3, barrier: 2 });
    expect(found.otherNativeMs).toBeCloseTo(1.6, 9);
    expect(found.orchestrationMs).toBeCloseTo(2.4, 9);
    const sum = Object.values(found).reduce((total, ms) => total + ms, 0);
    expect(sum).toBeCloseTo(10, 9);
  });
});

test('no prompt begins like an earlier one', () => {
  const prompts = freshPrompts(1000);
  const firsts = Array.from({ length: 50 }, () => prompts(512).slice(0, 32).join());
  expect(new Set(firsts).size).toBe(50);
  expect(prompts(100).every((id) => Number.isInteger(id) && id >= 0 && id < 1000)).toBe(true);
});

test('the read buffer exceeds the caches but leaves memory', () => {
  expect(readBufferBytes(32e6, 64e9)).toBe(512 * 2 ** 20);
  expect(readBufferBytes(500e6, 64e9)).toBe(1500e6);
  expect(readBufferBytes(500e6, 3e9)).toBe(1e9);
});

test.each([
  ['--gen-tokens 1', /`genTokens` to be an integer >= 2, got 1/],
  ['--batch 0', /`batch` to be an integer >= 1, got 0/],
  ['--quant q4_0', /`quant` to be given together with --synthetic/],
  ['--synthetic nothing', /`synthetic` to be one of olmoe-1b-7b, .*got "nothing"/],
  ['--synthetic olmoe-1b-7b --model x', /`synthetic` to be absent where --model is given/],
])('refuses %s', async (argv, message) => {
  const { context, err, calls } = fakeContext();
  expect(await runCli(['bench', ...argv.split(' ')], context)).toBe(2);
  expect(err()).toMatch(message);
  expect(calls.load).toHaveLength(0);
});
