/**
 * The package with a GPU that fails or lacks something: the text is transformers' all the same, and what is missing is
 * said. The GPU is the emulated one; what native code answers to each fault is test/native/gpu_device_test.cc's.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { goldenFolder, goldenPrompts } from './built.js';

const scenario = fileURLToPath(new URL('gpu-scenario.mjs', import.meta.url));

type Outcome = { tokenIds: number[]; warnings: string[]; gpu: string };

type Case = { name: string; model?: string; env: Record<string, string>; gpu: string; warnings: RegExp[] };

function generate(model: string, env: Record<string, string>): Outcome {
  const ids = JSON.stringify(goldenPrompts(model)[0]?.inputIds);
  const options = { encoding: 'utf8', env: { ...process.env, ...env }, stdio: 'pipe' } as const;
  return JSON.parse(execFileSync(process.execPath, [scenario, goldenFolder(model), ids], options));
}

it.each<Case>([
  { name: 'a GPU', env: {}, gpu: 'emulated', warnings: [] },
  { name: 'memory that GPU and CPU share', env: { NEARMOE_GPU_UNIFIED: '1' }, gpu: 'emulated', warnings: [] },
  { name: 'sm_75', env: { NEARMOE_GPU_COMPUTE_CAPABILITY: '75' }, gpu: 'emulated', warnings: [] },
  {
    name: 'graphs switched off',
    env: { NEARMOE_GPU_GRAPHS: 'off' },
    gpu: 'emulated',
    warnings: [/without CUDA graphs: NEARMOE_GPU_GRAPHS=off/],
  },
  {
    name: 'a graph that the driver refuses',
    env: { NEARMOE_GPU_FAULT: '7:3' },
    gpu: 'emulated',
    warnings: [/without CUDA graphs: cudaGraphInstantiate: out of memory \(2\)/],
  },
  {
    name: 'a kernel that fails in mid-text',
    env: { NEARMOE_GPU_FAULT: '5:700' },
    gpu: 'off',
    warnings: [/^Going on without a GPU.*cuda\w+: an illegal memory access.*last kernel: \w/],
  },
  {
    name: 'a kernel that fails in mid-text, with states on the GPU',
    model: 'qwen3_next',
    env: { NEARMOE_GPU_FAULT: '5:700' },
    gpu: 'off',
    warnings: [/^Going on without a GPU.*cuda\w+: an illegal memory access.*last kernel: \w/],
  },
  {
    name: 'a GPU that is lost in mid-text',
    env: { NEARMOE_GPU_FAULT: '6:4000' },
    gpu: 'off',
    warnings: [/^Going on without a GPU.*device is busy or unavailable/],
  },
])(
  '$name: the golden tokens, and a word about it',
  {
    timeout: 60_000,
  },
  ({ model = 'qwen3_moe', env, gpu, warnings }) => {
    const outcome = generate(model, env);
    expect(outcome.tokenIds).toEqual(goldenPrompts(model)[0]?.greedyIds);
    expect(outcome.warnings).toEqual(warnings.map((pattern) => expect.stringMatching(pattern)));
    expect(outcome.gpu).toBe(gpu);
  },
);
