/** The machine's ceilings as native code measures them: plausible rates, and refusals that name what was wrong. */
import { describe, expect, it } from 'vitest';
import { binding, type NativeCeilingOptions } from '../../src/binding.js';

const options: NativeCeilingOptions = {
  kind: 'read',
  threads: 2,
  pinThreads: false,
  timeMs: 10,
  bufferBytes: 64e6,
  isa: '',
};

describe('measureCeiling', () => {
  it('reads memory at a rate that a memory can have', () => {
    const rate = binding().measureCeiling(options);
    expect(rate).toBeGreaterThan(0.5);
    expect(rate).toBeLessThan(20_000);
  });

  const { runnableIsas } = binding().cpuInfo();
  it.each(runnableIsas.filter((isa) => isa !== 'scalar'))(
    '%s multiplies faster in 8 bits than in 32',
    (isa) => {
      const int8 = binding().measureCeiling({ ...options, kind: 'int8', isa });
      const float = binding().measureCeiling({ ...options, kind: 'float', isa });
      expect(float).toBeGreaterThan(0.5);
      expect(int8).toBeGreaterThan(float);
    },
  );

  it.each([
    [{ kind: 'int8' as const, isa: 'scalar' }, /no multiply loop for instruction set 'scalar'/],
    [{ kind: 'float' as const, isa: 'mmx' }, /no multiply loop for instruction set 'mmx'/],
    [{ bufferBytes: 1000 }, /smaller than 4 MiB for each thread/],
    [{ threads: 0 }, /options.threads/],
    [{ kind: 'write' as 'read' }, /options.kind/],
  ])('refuses %o', (change, message) => {
    expect(() => binding().measureCeiling({ ...options, ...change })).toThrow(message);
  });
});
