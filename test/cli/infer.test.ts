/**
 * The command line as a person runs it: `node infer.js` in a process of its own, on the built package and the built
 * addon, with a tiny checkpoint of the goldens. What each option does to the engine is tested elsewhere (test/unit, test/golden).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { binding } from '../../src/binding.js';

const root = path.resolve(import.meta.dirname, '../..');
const folder = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-infer-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Outcome = { status: number | null; stdout: string; stderr: string };
type RunOptions = { env?: Record<string, string>; onStart?: (child: ChildProcess) => void; script?: string };

function infer(argv: string[], { env = {}, onStart, script = path.join(root, 'infer.js') }: RunOptions = {}) {
  return new Promise<Outcome>((resolve) => {
    const child = spawn(process.execPath, [script, ...argv], { env: { ...process.env, ...env } });
    const outcome: Outcome = { status: null, stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => (outcome.stdout += chunk));
    child.stderr.on('data', (chunk) => (outcome.stderr += chunk));
    child.on('close', (status) => resolve({ ...outcome, status }));
    child.stdin.end();
    onStart?.(child);
  });
}

const fixture = path.join(root, 'test/golden/fixtures/qwen3_moe');
const story = ['Once upon', '--model', fixture, '--seed', '1', '--units', '2', '--ignore-eos'];

describe('a text', () => {
  test('goes to stdout, its figures to stderr', async () => {
    const { status, stdout, stderr } = await infer([...story, '--max-tokens', '24']);
    expect(stderr).toMatch(/^decode +24 tokens/m);
    expect(status).toBe(0);
    expect(stdout.length).toBeGreaterThan(8);
    expect(stdout + stderr).not.toContain('\x1b');
  });

  test('--json puts exactly one object on stdout', async () => {
    const { status, stdout } = await infer([...story, '--max-tokens', '8', '--json']);
    expect(status).toBe(0);
    const result = JSON.parse(stdout);
    expect(stdout.indexOf('\n')).toBe(stdout.length - 1);
    expect(result.tokenIds).toHaveLength(8);
    expect(result).toMatchObject({ finishReason: 'length', seed: 1, usage: { completionTokens: 8 } });
    expect(result.timings.decodeTokensPerSecond).toBeGreaterThan(0);
    expect(result.devices.unitBusyMs).toHaveLength(2);
  });

  test('files: timeline, routing and logits', async () => {
    const [trace, routing, logits] = ['t.json', 'r.json', 'l.bin'].map((name) => path.join(folder, name));
    const files = ['--trace', `${trace}`, '--record-routing', `${routing}`, '--logits-out', `${logits}`];
    const { status, stdout } = await infer([
      ...story,
      '--max-tokens',
      '4',
      '--gpu',
      'host',
      '--json',
      ...files,
    ]);
    expect(status).toBe(0);
    const { usage } = JSON.parse(stdout);
    const { traceEvents } = JSON.parse(readFileSync(`${trace}`, 'utf8'));
    const lanes = traceEvents.flatMap((event: { name: string; args: { name: string } }) =>
      event.name === 'thread_name' ? [event.args.name] : [],
    );
    expect(lanes).toEqual(expect.arrayContaining(['gpu', 'unit 0', 'unit 1']));
    const recorded = JSON.parse(readFileSync(`${routing}`, 'utf8'));
    expect(recorded.tokens).toBe(usage.totalTokens - 1);
    const ids = Buffer.from(recorded.ids, 'base64');
    expect(ids.length).toBe(2 * recorded.tokens * recorded.layers.length * recorded.topK);
    expect(statSync(`${logits}`).size % (4 * usage.completionTokens)).toBe(0);
  });

  test('Ctrl-C ends it with what was written so far', async () => {
    const { status, stderr } = await infer([...story, '--max-tokens', '240'], {
      onStart: (child) => child.stdout?.once('data', () => child.kill('SIGINT')),
    });
    expect([status, stderr]).toEqual([130, expect.stringContaining('end: cancelled')]);
  });
});

describe('the demo model, without any option', () => {
  test('continues a story with words, the same ones for the same seed', async () => {
    const argv = ['Once upon a time', '--max-tokens', '40', '--seed', '7', '--json'];
    const [first, second] = await Promise.all([infer(argv), infer(argv)]);
    expect([first.status, second.status]).toEqual([0, 0]);
    const { text, tokenIds } = JSON.parse(first.stdout);
    expect(JSON.parse(second.stdout).tokenIds).toEqual(tokenIds);
    expect(text.match(/[a-z]{2,}/gi)?.length).toBeGreaterThan(15);
  });

  test('writes the tokens that transformers writes', async () => {
    const golden = JSON.parse(readFileSync(path.join(root, 'test/golden/fixtures/demo-greedy.json'), 'utf8'));
    const length = `${golden.greedyIds.length}`;
    const argv = [golden.prompt, '--temperature', '0', '--max-tokens', length, '--ignore-eos', '--json'];
    const { stdout } = await infer(argv);
    expect(JSON.parse(stdout).tokenIds).toEqual(golden.greedyIds);
  });
});

describe('what is wrong is told', () => {
  test.each([
    [['x', '--units', '0', '--model', fixture], 2, /Expected `units` to be an integer .*, got 0/],
    [['x', '--model', '/nowhere'], 1, /\/nowhere: expected a model folder/],
    [['', '--model', fixture], 1, /ERR_PROMPT/],
  ])('%j', async (argv, expected, message) => {
    const { status, stdout, stderr } = await infer(argv);
    expect(stderr).toMatch(message);
    expect([status, stdout]).toEqual([expected, '']);
  });

  test('a package that is not built', async () => {
    copyFileSync(path.join(root, 'infer.js'), path.join(folder, 'infer.js'));
    writeFileSync(path.join(folder, 'package.json'), '{ "type": "module" }');
    const { status, stderr } = await infer(['x'], { script: path.join(folder, 'infer.js') });
    expect([status, stderr]).toEqual([1, expect.stringContaining('Run `npm ci` in this folder first')]);
  });

  test('an addon that is not there: what was looked for, and the command that mends it', async () => {
    const { status, stdout } = await infer(['doctor'], { env: { NEARMOE_PREBUILD: folder } });
    expect(status).toBe(1);
    expect(stdout).toMatch(/addon +MISSING: The native addon of nearmoe did not load .*build\/Release/);
    expect(stdout).toContain('npm run build:native');
  });
});

test('doctor tells what it finds, also as JSON', async () => {
  const { stdout } = await infer(['doctor', '--json']);
  const { findings, ...rest } = JSON.parse(stdout);
  expect(findings).toContainEqual(expect.objectContaining({ name: 'addon', ok: true }));
  expect(rest).toMatchObject({
    node: process.version,
    cpu: { isa: expect.stringMatching(/\w/), runnableIsas: expect.arrayContaining(['scalar']) },
  });
});

describe('NEARMOE_ISA', () => {
  const greedy = [...story, '--temperature', '0', '--max-tokens', '8', '--json'];
  const { runnableIsas } = binding().cpuInfo();

  test.each(['scalar', 'avx2', 'avx512'])(
    '%s computes the same tokens, or is refused by name',
    async (isa) => {
      const reference = JSON.parse((await infer(greedy)).stdout);
      const { status, stdout, stderr } = await infer([...greedy], { env: { NEARMOE_ISA: isa } });
      if (!runnableIsas.includes(isa)) {
        expect([status, stderr]).toEqual([2, expect.stringContaining(`got "${isa}"`)]);
        return;
      }
      expect(status).toBe(0);
      expect(JSON.parse(stdout).tokenIds).toEqual(reference.tokenIds);
      const doctor = await infer(['doctor'], { env: { NEARMOE_ISA: isa } });
      expect(doctor.stdout).toMatch(
        new RegExp(`^kernels +${isa}, forced by NEARMOE_ISA \\(runnable: scalar`, 'm'),
      );
    },
  );

  test('refuses a name that this machine cannot run, in words', async () => {
    const { status, stderr } = await infer(greedy, { env: { NEARMOE_ISA: 'mmx' } });
    expect(status).toBe(2);
    expect(stderr).toMatch(/Expected `NEARMOE_ISA` to be one of "scalar".*got "mmx"/);
    const option = await infer([...greedy, '--isa', 'mmx']);
    expect([option.status, option.stderr]).toEqual([
      2,
      expect.stringContaining('Expected `isa` to be one of'),
    ]);
    const doctor = await infer(['doctor'], { env: { NEARMOE_ISA: 'mmx' } });
    expect([doctor.status, doctor.stdout]).toEqual([
      1,
      expect.stringMatching(/^kernels +MISSING: Expected/m),
    ]);
  });
});
