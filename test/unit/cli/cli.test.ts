/**
 * The command line against a fake model: which options reach the engine, what goes to stdout and stderr, exit
 * statuses, files. No engine runs here.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { runCli } from '../../../src/cli/main.js';
import { AbortedError, ModelFormatError, PromptError } from '../../../src/errors.js';
import { fakeContext, result } from './fake-model.js';

const folder = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-cli-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const run = (argv: string[], options = {}) => {
  const fake = fakeContext(options);
  return runCli(argv, fake.context).then((status) => ({ ...fake, status }));
};
const model = ['--model', folder];

describe('run', () => {
  test('writes the text to stdout and what it cost to stderr', async () => {
    const { status, out, err, calls } = await run(['Once upon', ...model]);
    expect(status).toBe(0);
    expect(out()).toBe(' a time.\n');
    expect(err()).toContain('qwen3_moe: 4 layers, 16 experts, 12.3 MB, loaded in');
    expect(err()).toMatch(/^decode +2 tokens {2}\| {2}99\.6 tokens\/s {2}\| {2}p50 10\.0 ms, p95 11\.2 ms/m);
    expect(err()).toMatch(/^cache +hit rate 75\.0% {2}\| {2}prefetched 9, used 5 {2}\| {2}moved 1\.50 MB$/m);
    expect(err()).not.toContain('\x1b');
    expect(calls.disposed).toBe(1);
  });

  test('lines of the summary fit 80 columns', async () => {
    const { err } = await run(['x', ...model]);
    for (const line of err().split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
  });

  test('a terminal sees progress and the prompt before the text', async () => {
    const { out, err } = await run(['Once upon', ...model], { tty: true });
    expect(out()).toBe('\x1b[2mOnce upon\x1b[22m a time.\n');
    expect(err()).toMatch(/load +\[#{24}\] 100% {2}10 B, weights/);
    expect(err()).toMatch(/prefill +\[#{24}\] 100% {2}3 tokens/);
  });

  test('passes every option on', async () => {
    const argv =
      'a b --units 3 --threads-per-unit 2 --tp-degree 1 --gpu host --gpu-threads 2 --vram 64MB ' +
      '--transfer-bandwidth 8 --policy static-split --prefetch off --cache-policy lru --kv-dtype f16 ' +
      '--max-context 100 --isa scalar --no-pin --max-tokens 5 --temperature 0.5 --top-k 4 --top-p 0.9 ' +
      '--min-p 0.1 --repetition-penalty 1.1 --seed 3 --stop x --stop y --ignore-eos';
    const { calls, status } = await run([...argv.split(' '), ...model]);
    expect(status).toBe(0);
    const { signal, onProgress, ...load } = calls.load[0] ?? { model: '' };
    expect(signal).toBeInstanceOf(AbortSignal);
    expect(onProgress).toBeTypeOf('function');
    expect(load).toEqual({
      model: folder,
      units: 3,
      threadsPerUnit: 2,
      tpDegree: 1,
      gpu: 'host',
      gpuThreads: 2,
      vram: '64MB',
      transferBandwidthGBs: 8,
      policy: 'static-split',
      prefetch: 'off',
      cachePolicy: 'lru',
      kvDtype: 'f16',
      maxContext: 100,
      isa: 'scalar',
      pinThreads: false,
    });
    expect(calls.generate[0]?.prompt).toBe('a b');
    expect(calls.generate[0]?.options).toMatchObject({
      maxTokens: 5,
      temperature: 0.5,
      topK: 4,
      topP: 0.9,
      minP: 0.1,
      repetitionPenalty: 1.1,
      seed: 3,
      stop: ['x', 'y'],
      ignoreEos: true,
      captureLogits: false,
    });
  });

  test('leaves defaults to the engine', async () => {
    const { calls } = await run(['x', ...model]);
    expect(Object.keys(calls.load[0] ?? {}).sort()).toEqual(['model', 'onProgress', 'signal']);
    expect(Object.keys(calls.generate[0]?.options ?? {}).sort()).toEqual(['captureLogits', 'onProgress']);
  });

  test('flags that nothing heeds are named', async () => {
    const flags = ['--policy', 'balanced', '--vram', '1MB'];
    const off = await run(['x', ...flags, ...model], { info: { gpu: 'off' } });
    expect(off.err()).toContain('no effect without a GPU lane (--gpu host): --policy, --vram\n');
    expect(off.err()).toMatch(/^experts +64 used {2}\| {2}all on the units$/m);
    expect((await run(['x', ...flags, ...model])).err()).not.toContain('no effect');
    expect((await run(['x', ...model], { info: { gpu: 'off' } })).err()).not.toContain('no effect');
  });

  test('takes token ids in place of a prompt', async () => {
    const { calls } = await run(['--input-ids', '1, 2,30', ...model]);
    expect(calls.generate[0]?.prompt).toEqual({ inputIds: [1, 2, 30] });
  });

  test('Ctrl-C ends the text early with status 130 and frees the model', async () => {
    const { status, out, err, calls } = await run(['x', ...model], { interrupt: true });
    expect([status, out(), calls.disposed]).toEqual([130, ' a\n', 1]);
    expect(err()).toContain('end: cancelled');
  });
});

describe('--json', () => {
  test('puts exactly the result on stdout', async () => {
    const { out, status } = await run(['x', '--json', ...model]);
    const { logits: _l, routing: _r, trace: _t, ...expected } = result;
    expect(status).toBe(0);
    expect(out().endsWith('}\n')).toBe(true);
    expect(JSON.parse(out())).toEqual(expected);
  });

  test('puts an error object there where the command failed', async () => {
    const loadError = new ModelFormatError({ file: 'a.json', field: 'b', expected: 'c', got: 'd' });
    const { out, err, status } = await run(['x', '--json', ...model], { loadError });
    expect(status).toBe(1);
    expect(JSON.parse(out())).toMatchObject({
      error: {
        code: 'ERR_MODEL_FORMAT',
        message: 'a.json: b: expected c, got d',
        file: 'a.json',
        field: 'b',
      },
    });
    expect(err()).toContain('error: a.json: b: expected c, got d (ERR_MODEL_FORMAT)');
  });
});

describe('files', () => {
  test('timeline, routing and logits are written as asked', async () => {
    const [trace, routing, logits] = ['t.json', 'r.json', 'l.bin'].map((name) => path.join(folder, name));
    const argv = [
      'x',
      '--trace',
      `${trace}`,
      '--record-routing',
      `${routing}`,
      '--logits-out',
      `${logits}`,
      ...model,
    ];
    const { calls, err } = await run(argv);
    expect(calls.generate[0]?.options).toMatchObject({
      trace: true,
      recordRouting: true,
      captureLogits: true,
    });
    const timeline = JSON.parse(readFileSync(`${trace}`, 'utf8'));
    expect(timeline.traceEvents).toContainEqual(
      expect.objectContaining({ ph: 'X', name: 'attention L0', dur: 4 }),
    );
    const recorded = JSON.parse(readFileSync(`${routing}`, 'utf8'));
    expect(recorded).toMatchObject({
      format: 'nearmoe-routing',
      version: 1,
      topK: 2,
      tokens: 2,
      layers: [0],
    });
    expect([...Buffer.from(recorded.ids, 'base64')]).toEqual([1, 0, 2, 0, 3, 0, 2, 1]);
    const bytes = readFileSync(`${logits}`);
    expect([0, 4, 8, 12].map((offset) => bytes.readFloatLE(offset))).toEqual([1.5, -2, 0, 3]);
    expect(err()).toContain('2 rows of 2 logits in');
  });

  test('a folder that is not there is told before the model is loaded', async () => {
    const { status, err, calls } = await run(['x', '--trace', path.join(folder, 'no/t.json'), ...model]);
    expect([status, calls.load.length]).toEqual([2, 0]);
    expect(err()).toContain('Expected `--trace` to be a file in a folder that exists');
  });
});

describe('chat', () => {
  test('answers one message and ends', async () => {
    const { calls, out } = await run(['chat', 'hello', 'you', '--system', 'be kind', ...model]);
    expect(out()).toBe(' a time.\n');
    expect(calls.chat[0]?.messages).toEqual([
      { role: 'system', content: 'be kind' },
      { role: 'user', content: 'hello you' },
    ]);
  });

  test('keeps the conversation from line to line until /exit', async () => {
    const { calls, status } = await run(['chat', ...model], {
      stdin: 'one\n\ntwo\n/clear\nthree\n/exit\nfour\n',
    });
    expect(status).toBe(0);
    expect(calls.chat.map(({ messages }) => messages.map(({ content }) => content))).toEqual([
      ['one'],
      ['one', ' a time.', 'two'],
      ['three'],
    ]);
    expect(calls.disposed).toBe(1);
  });

  test('a turn that fails is told and forgotten', async () => {
    const requestError = new PromptError('too long');
    const { calls, err, status } = await run(['chat', ...model], { stdin: 'one\ntwo\n', requestError });
    expect(status).toBe(0);
    expect(calls.chat.map(({ messages }) => messages.length)).toEqual([1, 1]);
    expect(err()).toContain('error: too long (ERR_PROMPT)');
  });
});

describe('a wrong command line', () => {
  test.each([
    [['x', '--units', 'many'], 2, 'Expected `units` to be a number, got "many"'],
    [['--input-ids', '1,x'], 2, 'Expected `--input-ids[1]` to be a token id, got "x"'],
    [['y', '--input-ids', '1'], 2, 'Expected `prompt` to be nothing beside --input-ids, got "y"'],
    [[], 2, 'Expected `prompt` to be a text, got nothing'],
    [['x', '--nope'], 2, "unknown option '--nope'"],
    [['chat', '--json'], 2, 'Expected `message` to be given beside --json'],
  ])('%j ends with status %d', async (argv, expected, message) => {
    const { status, err, calls, out } = await run([...argv, ...model]);
    expect(err()).toContain(message);
    expect([status, calls.load.length]).toEqual([expected, 0]);
    if (!argv.includes('--json')) expect(out()).toBe('');
  });

  test('an aborted load ends with status 130', async () => {
    const { status, err } = await run(['x', ...model], { loadError: new AbortedError('Loading the model') });
    expect([status, err()]).toEqual([130, 'interrupted\n']);
  });
});

test('--help names every option and command and fits 80 columns', async () => {
  const { status, out } = await run(['--help']);
  expect(status).toBe(0);
  for (const word of [
    '--model',
    '--max-tokens',
    '--record-routing',
    '--logits-out',
    'chat',
    'doctor',
    'static-split',
    'lru',
    'prefill',
  ]) {
    expect(out()).toContain(word);
  }
  for (const line of out().split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
});

test('--version prints the version of the package', async () => {
  const { version } = JSON.parse(
    readFileSync(path.resolve(import.meta.dirname, '../../../package.json'), 'utf8'),
  );
  expect((await run(['--version'])).out()).toBe(`${version}\n`);
});
