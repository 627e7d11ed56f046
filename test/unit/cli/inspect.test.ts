/**
 * `inspect` on real folders: what it prints for people and as JSON, what --plan adds, how a bad folder is told.
 */
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli } from '../../../src/cli/main.js';
import { modelFolder, neededTensors, newFolder, TINY_CONFIGS } from '../model/tiny-checkpoint.js';
import { fakeContext, info } from './fake-model.js';

const config = TINY_CONFIGS.qwen3_moe ?? {};
const folder = modelFolder({ config, tensors: neededTensors(config) });

async function inspect(...argv: string[]) {
  const fake = fakeContext();
  const status = await runCli(['inspect', ...argv], fake.context);
  return { ...fake, status };
}

describe('inspect', () => {
  test('tells shapes, parameters and bytes in lines of 80 columns', async () => {
    const { status, out, calls } = await inspect(folder);
    expect([status, calls.load.length]).toEqual([0, 0]);
    const lines = out().trimEnd().split('\n').slice(1);
    expect(lines).toContain('family      qwen3_moe');
    expect(lines).toContain('layers      2, 1 of them with experts, hidden size 8');
    expect(lines).toContain('experts     3 a layer, 2 per token, intermediate size 5');
    expect(lines).toContain('vocabulary  300 (tokenizer 293)');
    expect(lines).toContain('chat        no template');
    // 2 x 2400 embedding and lm_head, 2 x 300 attention, 40 norms, 240 dense, 24 router, 3 experts of 120.
    expect(lines).toContain('parameters  6,064, active per token 5,944 (98.0%)');
    expect(lines).toContain('one expert  480 B');
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80);
  });

  test('--json gives the same as one object', async () => {
    const { out } = await inspect('--model', folder, '--json');
    expect(JSON.parse(out())).toMatchObject({
      path: folder,
      format: 'hub',
      architecture: 'qwen3_moe',
      parameters: { total: 6064, active: 5944 },
      sizeBytes: { total: 4 * 6064, byDtype: { f32: 4 * 6064 } },
      kvBytesPerToken: 2 * 2 * 6 * 2,
    });
  });

  test('--plan loads the model and tells what is where and why', async () => {
    const { out, calls } = await inspect(folder, '--plan', '--units', '2');
    expect(calls.load[0]).toMatchObject({ model: folder, units: 2 });
    expect(calls.disposed).toBe(1);
    expect(out()).toContain('plan        2 units x 1 threads, TP 2, GPU lane host, 8 expert slots');
    expect(out()).toContain('            unit 0     experts    12.3 MB');
    expect(out()).toContain(`why         ${info.reasons[0]}`);
  });

  test('a folder without a model is told by name', async () => {
    const empty = newFolder();
    const { status, err } = await inspect(empty);
    expect(status).toBe(1);
    expect(err()).toContain(`error: ${path.join(empty, 'config.json')}: expected the model's configuration`);
  });
});
