import { describe, expect, it } from 'vitest';
import type { NativeCpuInfo } from '../../../src/binding.js';
import type { DeviceInfo } from '../../../src/device/device.js';
import { planReport } from '../../../src/engine/plan-report.js';
import { resolveSettings } from '../../../src/engine/settings.js';
import { kvBytes } from '../../../src/engine/weight-facts.js';
import type { ModelSpec, RopeScaling } from '../../../src/model/model-spec.js';
import type { EngineOptions } from '../../../src/options.js';

const cpu = (physicalCores: number, numaNodes = 1) => ({ physicalCores, numaNodes }) as NativeCpuInfo;
const spec = (maxPositions: number, scaling: RopeScaling = { type: 'default' }) =>
  ({ maxPositions, ropes: [{ scaling }], layers: [] }) as unknown as ModelSpec;
const resolve = (options: Partial<EngineOptions>, cores = cpu(8), model = spec(4096), isFloat = false) =>
  resolveSettings({ model: 'm', ...options }, { spec: model, expertBytes: 1000, isFloat }, cores);

describe('resolveSettings', () => {
  it('takes a unit per core, or per NUMA node where there are several', () => {
    expect(resolve({})).toMatchObject({
      units: 8,
      threadsPerUnit: 1,
      tpDegree: 8,
      gpu: 'off',
      gpuThreads: 0,
    });
    expect(resolve({}, cpu(64, 4))).toMatchObject({ units: 4, threadsPerUnit: 16, tpDegree: 4 });
    expect(resolve({ units: 3 })).toMatchObject({ units: 3, threadsPerUnit: 2 });
    expect(resolve({ units: 16 })).toMatchObject({ units: 16, threadsPerUnit: 1 });
  });

  it('leaves the host GPU its cores and a quarter of the experts', () => {
    expect(resolve({ gpu: 'host', gpuThreads: 2 })).toMatchObject({
      units: 6,
      gpuThreads: 2,
      vramBytes: 250,
    });
    expect(resolve({ gpu: 'host', vram: '1KB' }, cpu(1))).toMatchObject({ units: 1, vramBytes: 1000 });
    expect(resolve({ gpu: 'off', vram: '1KB', gpuThreads: 4 })).toMatchObject({
      vramBytes: 0,
      gpuThreads: 0,
    });
  });

  it('keeps the context within the model and memory', () => {
    expect(resolve({})).toMatchObject({ maxContext: 4096, kvBlocks: 256 });
    expect(resolve({}, cpu(2), spec(131072))).toMatchObject({ maxContext: 8192, kvBlocks: 256 });
    expect(resolve({ maxContext: 100, kvTokens: 10 })).toMatchObject({ maxContext: 100, kvBlocks: 4 });
    expect(() => resolve({ maxContext: 4097 })).toThrow('from 1 to 4096');
    const dynamic: RopeScaling = { type: 'dynamic', factor: 2, originalMaxPositions: 4096 };
    expect(resolve({ maxContext: 8000 }, cpu(2), spec(4096, dynamic)).maxContext).toBe(8000);
  });

  it('keeps float checkpoints exact in the KV cache', () => {
    expect(resolve({}, cpu(2), spec(64), true).kvDtype).toBe('f32');
    expect(resolve({}, cpu(2), spec(64), false).kvDtype).toBe('f16');
    expect(resolve({ kvDtype: 'q8_0' }, cpu(2), spec(64), true).kvDtype).toBe('q8_0');
  });

  it('lets no more sequences into a step than it has tokens', () => {
    expect(resolve({ maxBatchTokens: 4 })).toMatchObject({ maxBatchTokens: 4, maxSequences: 4 });
  });
});

describe('sizes', () => {
  it('of the KV cache', () => {
    const layer = { attention: { numKvHeads: 2, headDim: 64 } };
    const model = { layers: [layer, layer] } as unknown as ModelSpec;
    expect(kvBytes(model, { kvDtype: 'f16', kvBlocks: 3 })).toBe(2 * 2 * 2 * 64 * 2 * 96);
    expect(kvBytes(model, { kvDtype: 'q8_0', kvBlocks: 1 })).toBe(2 * 2 * 2 * (64 / 32) * 34 * 32);
  });

  it('the report says how experts are cut', () => {
    const info = {
      units: 4,
      tpDegree: 2,
      ndpGroups: 2,
      gpu: 'off',
      expertSlots: 0,
      expertBytes: 1,
    } as DeviceInfo;
    const model = { ...spec(64), architecture: 'x' };
    const report = planReport(model, resolve({ units: 4 }), info, [], undefined, {
      toolCalls: undefined,
      reasoning: undefined,
    });
    expect(report.reasons[0]).toContain('expert e is on group e mod 2');
    expect(report.residents).toEqual([]);
  });
});
