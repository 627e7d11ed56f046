/** Loads and ends of models and of their processes, each scenario in a process of its own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { goldenFolder } from './built.js';

const script = fileURLToPath(new URL('./scenario.mjs', import.meta.url));

type Outcome = {
  status: number | null;
  signal: string | null;
  stderr: string;
  result: Record<string, unknown>;
};

async function run(scenario: string): Promise<Outcome> {
  const child = spawn(process.execPath, ['--expose-gc', script, scenario, goldenFolder('qwen3_moe')]);
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
