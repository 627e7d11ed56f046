/**
 * Shows each case of the native executable kernel_tests (op x ISA x format) as a test of its own. The executable is
 * built by `node scripts/build-addon.mjs --tests`; it runs once, this file only reads its lines.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';

const root = path.resolve(import.meta.dirname, '../..');
const executable = path.join(root, 'build-cmake/kernel_tests');
const built = existsSync(executable);
const names = built ? execFileSync(executable, ['--list'], { encoding: 'utf8' }).trim().split('\n') : [];

describe('kernels', () => {
  const outcomes = new Map<string, string>();

  beforeAll(() => {
    const { stdout } = spawnSync(executable, [], { encoding: 'utf8', maxBuffer: 1 << 24 });
    for (const line of stdout.split('\n')) {
      const match = /^(ok|FAILED) ([^:]+)(?:: (.*))?$/.exec(line);
      if (match?.[2] !== undefined) outcomes.set(match[2], match[1] === 'ok' ? 'ok' : (match[3] ?? 'FAILED'));
    }
  }, 300_000);

  it('were built for tests', () => {
    expect(built, 'build-cmake/kernel_tests is missing: run `node scripts/build-addon.mjs --tests`').toBe(
      true,
    );
    expect(names.some((name) => name.startsWith('scalar '))).toBe(true);
  });

  it.each(names)('%s', (name) => {
    expect(outcomes.get(name)).toBe('ok');
  });
});
