/** The coverage-guided fuzz script, for a few seconds: it finds its way into the readers and they hold. */
import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';

it('finds new paths through the readers and no failure', () => {
  const output = execFileSync(process.execPath, ['test/fuzz/coverage-guided.mjs', '--seconds', '3'], {
    encoding: 'utf8',
  });
  const [inputs, kept, blocks] = (output.match(/\d+/g) ?? []).map(Number);
  expect(output).toMatch(/no failure/);
  expect(inputs).toBeGreaterThan(50);
  expect(kept).toBeGreaterThan(5);
  expect(blocks).toBeGreaterThan(100);
});
