/** Loads and ends of models and of their processes, each scenario in a process of its own. */
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { goldenFolder } from './built.js';
import { writeSyntheticCheckpoint } from './synthetic-checkpoint.js';

const script = fileURLToPath(new URL('./scenario.mjs', import.meta.url));

type Outcome = {
  status: number | null;
  signal: string | null;
  stderr: string;
  result: Record<string, unknown>;
};

async function run(scenario: string, folder = goldenFolder('qwen3_moe')): Promise<Outcome> {
  const child = spawn(process.execPath, ['--expose-gc', script, scenario, folder]);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => {
    stdout += data;
  });
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  const [status, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.on('close', (...ended) => resolve(ended));
  });
  const last = stdout.trim().split('\n').at(-1) ?? '';
  return { status, signal, stderr, result: last === '' ? {} : (JSON.parse(last) as Record<string, unknown>) };
}

const ended = { status: 0, signal: null, stderr: '' };

describe('life cycle', () => {
  it('100 rounds of load, generate and dispose do not grow memory', { timeout: 120_000 }, async () => {
    const outcome = await run('rounds');
    expect(outcome).toMatchObject(ended);
    const { middleBytes, endBytes } = outcome.result as { middleBytes: number; endBytes: number };
    // A leaked KV cache alone (6 MB a round) would be 300 MB between the two.
    expect(endBytes - middleBytes).toBeLessThan(0.03 * middleBytes);
  });

  it.runIf(process.platform === 'linux')('loading takes at most 1.15 x the bytes held', async () => {
    const shape = {
      hiddenSize: 512,
      layers: 8,
      numExperts: 16,
      topK: 4,
      intermediateSize: 256,
      maxPositions: 4096,
    };
    const folder = writeSyntheticCheckpoint(shape);
    try {
      const outcome = await run('peak', folder);
      expect(outcome).toMatchObject(ended);
      const { heldBytes, peakBytes } = outcome.result as { heldBytes: number; peakBytes: number };
      expect(heldBytes).toBeGreaterThan(200e6);
      expect(peakBytes).toBeGreaterThan(0.9 * heldBytes);
      expect(peakBytes).toBeLessThan(1.15 * heldBytes);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('a worker terminated in mid-step harms nobody', { timeout: 60_000 }, async () => {
    const outcome = await run('terminate');
    expect(outcome).toMatchObject(ended);
    expect(outcome.result.text).not.toBe('');
  });

  it('a process may exit in mid-step', async () => {
    expect(await run('exit')).toMatchObject({ ...ended, status: 7, result: { exiting: true } });
  });

  it('a process ends by itself though nobody disposed', async () => {
    expect(await run('forget')).toMatchObject(ended);
  });

  it('dispose during generation ends every request', { timeout: 60_000 }, async () => {
    const outcome = await run('disposals');
    expect(outcome).toMatchObject(ended);
    expect(outcome.result.outcomes).toContain('ERR_DISPOSED');
    expect(['ERR_DISPOSED', 'done']).toEqual(expect.arrayContaining(outcome.result.outcomes as string[]));
  });
});
