/**
 * A short run of bench/serve-soak.mjs: texts, statuses and metrics as in the long one. Its memory bound is wide here,
 * since a process that has just started still grows; docs/serving.md has the long run's.
 */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const script = path.resolve(import.meta.dirname, '../../bench/serve-soak.mjs');

it.runIf(process.platform === 'linux')(
  'mixed, cancelled and malformed requests leave answers and books right',
  { timeout: 120_000 },
  async () => {
    const argv = [
      script,
      '--requests',
      '150',
      '--seed',
      '7',
      '--most-growth',
      '0.3',
      '--old-mib',
      '0',
      '--rest-seconds',
      '1',
      '--json',
    ];
    const { stdout } = await promisify(execFile)(process.execPath, argv);
    const outcome = JSON.parse(stdout);
    expect(outcome.problems).toEqual([]);
    expect(outcome).toMatchObject({ sent: 150, wrongTexts: 0, wrongStatuses: [] });
    for (const kind of ['completed', 'cancelled', 'malformed'])
      expect(outcome[kind], kind).toBeGreaterThan(5);
    expect(outcome.completed + outcome.cancelled + outcome.malformed).toBe(150);
  },
);
