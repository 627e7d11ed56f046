/** Each example as a person would start it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const running: ChildProcess[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});

function start(name: string, ...args: string[]) {
  const child = spawn(process.execPath, [`examples/${name}.mjs`, ...args], { cwd: root });
  running.push(child);
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (data) => {
    output.stdout += data;
  });
  child.stderr.setEncoding('utf8').on('data', (data) => {
    output.stderr += data;
  });
  return { child, output, ended: once(child, 'close') };
}

/** The address that a service prints when it listens. */
async function service(name: string) {
  const started = start(name);
  while (!started.output.stdout.includes('http')) await once(started.child.stdout, 'data');
  return { ...started, url: /http:\/\/[^\s]+:\d+/.exec(started.output.stdout)?.[0] ?? '' };
}

const post = (url: string, body: object) =>
  fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

it('fastify: streams a story, refuses a bad body, closes on SIGTERM', async () => {
  const { url, child, ended, output } = await service('fastify');
  const answer = await post(`${url}/story`, { prompt: 'Once upon a time' });
  expect(answer.status).toBe(200);
  expect((await answer.text()).length).toBeGreaterThan(40);
  expect((await post(`${url}/story`, {})).status).toBe(400);
  child.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
  expect(output.stderr).toBe('');
});

it('express: answers in the shape of its schema, closes on SIGTERM', async () => {
  const { url, child, ended, output } = await service('express');
  const answer = await post(`${url}/hero`, { story: 'Mia and the dragon' });
  expect(answer.status).toBe(200);
  expect(await answer.json()).toEqual({
    name: expect.any(String),
    age: expect.any(Number),
    brave: expect.any(Boolean),
  });
  expect((await post(`${url}/hero`, { story: '' })).status).toBe(400);
  child.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
  expect(output.stderr).toBe('');
});

it('worker pool: shares the prompts between its engines', async () => {
  const { ended, output } = start('worker-pool');
  expect(await ended).toEqual([0, null]);
  const { texts, answered } = JSON.parse(output.stdout) as { texts: number; answered: number[] };
  expect(texts).toBe(8);
  expect(answered).toEqual([4, 4]);
});

it('AI SDK chat: answers line by line', async () => {
  const { child, ended, output } = start('ai-sdk-chat');
  child.stdin.end('Tell me a story about a dragon.\nAnd another one.\n');
  expect(await ended).toEqual([0, null]);
  expect(output.stdout.trim().length).toBeGreaterThan(40);
  expect(output.stderr).toBe('');
});

it('batch: a file in, JSON lines out in order, with a progress bar', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'nearmoe-batch-'));
  try {
    const [input, answers] = [path.join(folder, 'prompts.txt'), path.join(folder, 'answers.jsonl')];
    const prompts = ['Once upon a time', 'The dragon', `too long ${'word '.repeat(3000)}`, 'A fish'];
    writeFileSync(input, prompts.join('\n'));
    const { ended, output } = start('batch', input, answers);
    expect(await ended).toEqual([0, null]);
    const lines = readFileSync(answers, 'utf8').trim().split('\n');
    const parsed = lines.map((line) => JSON.parse(line) as { prompt: string; text?: string; error?: string });
    expect(parsed.map(({ prompt }) => prompt)).toEqual(prompts);
    expect(parsed[2]?.error).toMatch(/at most/);
    expect(parsed.filter(({ text }) => (text ?? '').length > 10).length).toBe(3);
    expect(output.stderr).toContain('4/4');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
