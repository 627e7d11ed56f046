import { describe, expect, it } from 'vitest';
import { OptionError } from '../../../src/errors.js';
import type { DTypeName } from '../../../src/model/dtypes.js';
import type { WeightRole } from '../../../src/model/model-spec.js';
import { openModel } from '../../../src/model/open-model.js';
import { heldDtype, matrixFormat, mixedFormat } from '../../../src/model/quantize-weights.js';

const format = (role: WeightRole, cols: number, wanted: DTypeName, tied = false) =>
  (['packed', 'file'] as const).map((place) =>
    matrixFormat({ role, cols, layer: 0 }, { tiedEmbeddings: tied, layers: [] }, wanted, place),
  );

describe('matrixFormat', () => {
  it('gives whole blocks what was asked for', () => {
    expect(format('expertGate', 512, 'q4_k')).toEqual(['q4_k', 'q4_k']);
    expect(format('query', 96, 'q4_0')).toEqual(['q4_0', 'q4_0']);
    expect(format('value', 5, 'bf16')).toEqual(['bf16', 'bf16']);
  });

  it('cuts superblocks in memory only; files take the next format', () => {
    expect(format('expertGate', 192, 'q4_k')).toEqual(['q4_k', 'q8_0']);
    expect(format('expertGate', 48, 'q4_0')).toEqual([undefined, undefined]);
  });

  it('keeps the output matrix finer, be it tied or not', () => {
    expect(format('lmHead', 256, 'q4_0')).toEqual(['q6_k', 'q6_k']);
    expect(format('lmHead', 192, 'q4_0')).toEqual(['q6_k', 'q8_0']);
    expect(format('lmHead', 256, 'q8_0')).toEqual(['q8_0', 'q8_0']);
    expect(format('embedding', 256, 'q4_0', true)).toEqual(['q6_k', 'q6_k']);
    expect(format('embedding', 256, 'q4_0', false)).toEqual(['q4_0', 'q4_0']);
  });
});

describe('mixedFormat', () => {
  it('gives values and down projections more bits in half of the layers', () => {
    const fine = Array.from({ length: 16 }, (_, layer) => mixedFormat('expertDown', layer, 16) === 'q6_k');
    expect(fine.flatMap((isFine, layer) => (isFine ? [layer] : []))).toEqual([0, 1, 4, 7, 10, 13, 14, 15]);
    expect(mixedFormat('value', 0, 16)).toBe('q6_k');
    expect(mixedFormat('expertGate', 0, 16)).toBe('q4_k');
  });
});

describe('openModel with quantize', () => {
  it('changes what is held and nothing of what is stored', () => {
    const { weights, tensors, spec } = openModel('models/demo', 'q4_k');
    const held = new Map(weights.map((weight) => [weight.role, heldDtype(weight, tensors)]));
    expect(spec.tiedEmbeddings).toBe(true);
    expect(Object.fromEntries(held)).toMatchObject({
      embedding: 'q6_k',
      query: 'q4_k',
      expertDown: 'q4_k',
      router: 'bf16',
      attentionNorm: 'bf16',
    });
    expect(new Set([...tensors].map(({ dtype }) => dtype))).toEqual(new Set(['bf16']));
  });

  it('refuses quantised weights', () => {
    expect(() => openModel('test/fixtures/gguf/mixtral.gguf', 'q8_0')).toThrow(OptionError);
  });
});
