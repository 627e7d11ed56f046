/** `convert` as a command: what it writes and says, what it refuses, and Ctrl-C. */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli } from '../../../src/cli/main.js';
import { openModel } from '../../../src/model/open-model.js';
import { newFolder } from '../model/tiny-checkpoint.js';
import { fakeContext } from './fake-model.js';

const source = 'test/fixtures/quantize/checkpoint';

async function convert(...argv: string[]) {
  const fake = fakeContext();
  const status = await runCli(['convert', ...argv], fake.context);
  return { ...fake, status };
}

describe('convert', () => {
  test('writes a file that opens, and tells its size and formats', async () => {
    const out = path.join(newFolder(), 'model.gguf');
    const { status, out: text } = await convert(source, out, '--type', 'q4_k');
    expect(status).toBe(0);
    expect(text()).toMatch(/model\.gguf: \d+ kB in .* \(.*q8_0 \d+ kB/);
    // 96 columns are no superblock of 256: the file has Q8_0 there, and says so.
    expect(text()).toMatch(/\d+ tensors in another format than asked for/);
    const tensors = openModel(out).tensors;
    expect(tensors.get('blk.0.ffn_down_exps.weight')?.dtype).toBe('q8_0');
    expect(tensors.get('blk.0.ffn_gate_inp.weight')?.dtype).toBe('f32');
  });

  test('--json gives one object', async () => {
    const out = path.join(newFolder(), 'model.gguf');
    const { out: text } = await convert(source, out, '--type', 'q8_0', '--json');
    const report = JSON.parse(text());
    expect(report).toMatchObject({ out, otherFormat: [] });
    expect(report.sizeBytes).toBe(report.bytesByDtype.q8_0 + report.bytesByDtype.f32);
  });

  test('replaces a file only where told to', async () => {
    const out = path.join(newFolder(), 'model.gguf');
    writeFileSync(out, 'mine');
    const refused = await convert(source, out);
    expect(refused.status).toBe(2);
    expect(refused.err()).toMatch(/Expected `out` to be a file that does not exist yet.*\n.*--force/);
    expect((await convert(source, out, '--force')).status).toBe(0);
    expect(openModel(out).source).toBe('gguf');
  });

  test('refuses an unknown format and a folder that is not there', async () => {
    const out = path.join(newFolder(), 'model.gguf');
    const format = await convert(source, out, '--type', 'q3');
    expect([format.status, format.err()]).toEqual([
      2,
      expect.stringContaining('one of keep, f32, f16, bf16'),
    ]);
    const folder = await convert(source, path.join(newFolder(), 'none', 'model.gguf'), '--json');
    expect(folder.status).toBe(1);
    expect(JSON.parse(folder.out()).error).toMatchObject({ code: 'ERR_OUTPUT' });
  });

  test('Ctrl-C leaves nothing behind', async () => {
    const folder = newFolder();
    const fake = fakeContext();
    let stop = () => {};
    fake.context.onInterrupt = (handler) => {
      stop = handler;
      return () => undefined;
    };
    const running = runCli(['convert', source, path.join(folder, 'model.gguf')], fake.context);
    expect(existsSync(path.join(folder, 'model.gguf.partial'))).toBe(true);
    stop();
    expect(await running).toBe(130);
    expect(readdirSync(folder)).toEqual([]);
  });
});
