/**
 * The cache of packed weights: the same numbers from it as from the checkpoint, made once, per way of cutting; and
 * whatever is wrong with its file is found, told and mended.
 */
import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LoadOptions, LoadProgress } from '../../src/index.js';
import { nearmoe } from './built.js';

const SOURCE = 'test/fixtures/quantize/q4_0.gguf';
const request = { maxTokens: 8, temperature: 0, ignoreEos: true, captureLogits: true } as const;
const inputIds = [5, 40, 99, 100, 3, 7];

let folder: string;
let cache: string;
let model: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-cache-'));
  cache = path.join(folder, 'cache');
  model = path.join(folder, 'model.gguf');
  copyFileSync(SOURCE, model);
});
afterEach(() => rmSync(folder, { recursive: true }));

async function run(options: Partial<LoadOptions> = {}) {
  const events: LoadProgress[] = [];
  const loaded = await nearmoe.loadModel({
    model,
    units: 2,
    pinThreads: false,
    repackCache: cache,
    onProgress: (progress) => events.push(progress),
    ...options,
  });
  const { logits } = await loaded.generate({ inputIds }, request).result;
  await loaded.dispose();
  const warnings = events.flatMap(({ warning }) => warning ?? []);
  const written = events.some(({ phase, warning }) => phase === 'cache' && warning === undefined);
  return { logits: logits?.values, warnings, written };
}

const files = () => readdirSync(cache).sort();
const only = () => path.join(cache, files()[0] ?? '');

describe('repackCache', () => {
  it.each([
    { units: 1 },
    { units: 2, tpDegree: 1 },
    { units: 2, gpu: 'host', vram: '1MB' } as const,
    { units: 1, threadsPerUnit: 2 },
  ])('gives the bits of the checkpoint at the second start: %o', async (options) => {
    const plain = await run({ ...options, repackCache: undefined });
    const first = await run(options);
    const second = await run(options);
    expect([first.written, second.written]).toEqual([true, false]);
    expect([...first.warnings, ...second.warnings]).toEqual([]);
    expect(plain.logits?.length).toBeGreaterThan(0);
    expect(first.logits).toEqual(plain.logits);
    expect(second.logits).toEqual(plain.logits);
    expect(files()).toHaveLength(1);
  });

  it('keeps a file for each way of cutting and each format', async () => {
    model = 'test/fixtures/quantize/checkpoint';
    await run({ units: 1 });
    await run({ units: 2 });
    await run({ units: 2, quantize: 'q8_0' });
    expect(files()).toHaveLength(3);
    for (const options of [{ units: 1 }, { units: 2 }, { units: 2, quantize: 'q8_0' } as const]) {
      expect((await run(options)).written).toBe(false);
    }
  });

  it.each([
    ['a flipped bit among the weights', /is damaged \(.*checksum/, () => flip(statSync(only()).size - 1000)],
    ['a flipped bit in the head', /has a damaged head/, () => flip(20)],
    ['a file cut short', /is cut short/, () => truncateSync(only(), statSync(only()).size - 1)],
    ['an empty file', /has a damaged head/, () => truncateSync(only(), 0)],
    ['something else', /has a damaged head/, () => writeFileSync(only(), 'x'.repeat(100_000))],
  ])('finds %s, warns and makes it anew', async (_, message, damage) => {
    const { logits } = await run();
    damage();
    const mended = await run();
    expect(mended.warnings).toEqual([expect.stringMatching(message)]);
    expect(mended.written).toBe(true);
    expect(mended.logits).toEqual(logits);
    expect((await run()).warnings).toEqual([]);
    expect(files()).toHaveLength(1);
  });

  it('is made anew where the checkpoint was written since, by its time or its content', async () => {
    await run();
    const { atime, mtime } = statSync(model);
    utimesSync(model, atime, new Date(mtime.getTime() + 1000));
    expect((await run()).warnings).toEqual([expect.stringMatching(/was made from other weights/)]);
    // Other values of the same size, the time put back.
    const bytes = readFileSync(model);
    const stamp = statSync(model);
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 50) ^ 1, bytes.length - 50);
    writeFileSync(model, bytes);
    utimesSync(model, stamp.atime, stamp.mtime);
    expect((await run()).warnings).toEqual([expect.stringMatching(/was made from other weights/)]);
    expect((await run()).warnings).toEqual([]);
  });

  it('leaves no part of a file behind where loading is stopped', async () => {
    const controller = new AbortController();
    const onProgress = ({ phase }: LoadProgress) => {
      if (phase === 'cache') controller.abort();
    };
    await run({ signal: controller.signal, onProgress }).catch((error) =>
      expect(error.name).toBe('AbortError'),
    );
    expect(files().filter((name) => name.endsWith('.partial'))).toEqual([]);
  });

  it('tells of what cannot be written and goes on', async () => {
    await run();
    const [before] = files();
    rmSync(only());
    chmodSync(cache, 0o500);
    const result = await run();
    chmodSync(cache, 0o700);
    // Who runs as root may write anywhere.
    if (process.getuid?.() === 0) expect(files()).toEqual([before]);
    else expect(result.warnings).toEqual([expect.stringMatching(/could not be written/)]);
  });

  it('refuses made-up weights, and a folder that is a file', async () => {
    await expect(run({ model: 'synthetic:tiny:q4_0' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
    await expect(run({ repackCache: model })).rejects.toMatchObject({ code: 'ERR_OUTPUT', file: model });
  });
});

function flip(at: number): void {
  const bytes = readFileSync(only());
  bytes.writeUInt8(bytes.readUInt8(at) ^ 4, at);
  writeFileSync(only(), bytes);
}
