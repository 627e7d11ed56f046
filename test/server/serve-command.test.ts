/** `nearmoe serve` as a person runs it, and the server mounted in somebody else's: sockets, signals, prefixes. */
import { spawn } from 'node:child_process';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { expect, it } from 'vitest';
import { demoModel } from './built-server.js';
import { scriptedServer } from './scripted-model.js';

const root = path.resolve(import.meta.dirname, '../..');

async function serve(...argv: string[]) {
  const child = spawn(process.execPath, [path.join(root, 'infer.js'), 'serve', ...argv], {
    env: { ...process.env, NEARMOE_API_KEYS: 'from-environment' },
  });
  let stderr = '';
  child.stderr.on('data', (data) => (stderr += data));
  const ended = new Promise<[number | null, string]>((resolve) => {
    child.on('close', (status) => resolve([status, stderr]));
  });
  const lines = createInterface({ input: child.stdout });
  const url = await new Promise<string>((resolve) => {
    lines.once('line', (line) => resolve(line.replace('listening on ', '')));
    lines.once('close', () => resolve(''));
  });
  return { child, url, ended };
}

it('serves the demo model, asks for its keys, and ends in an orderly way with what runs', async () => {
  const { child, url, ended } = await serve('--port', '0', '--api-key', 'k');
  const ask = (key: string, max_tokens: number) =>
    fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify({ model: path.basename(demoModel), prompt: 'Once', max_tokens, stream: true }),
    });
  expect((await ask('wrong', 1)).status).toBe(401);
  expect((await ask('from-environment', 1)).status).toBe(200);
  const running = await ask('k', 300);
  child.kill('SIGTERM');
  expect(await running.text()).toMatch(/"finish_reason":"(length|stop)".*data: \[DONE\]\n\n$/s);
  const [status, stderr] = await ended;
  expect([status, stderr]).toEqual([0, expect.stringContaining('requests under way are finished first')]);
});

it('says what is wrong with its options, and where it cannot listen', async () => {
  expect((await (await serve('--port', '99999')).ended)[0]).toBe(2);
  const taken = http.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  const { port } = taken.address() as AddressInfo;
  const [status, stderr] = await (await serve('--port', `${port}`)).ended;
  expect([status, stderr]).toEqual([2, expect.stringContaining(`127.0.0.1:${port} cannot be listened on`)]);
  taken.close();
});

it('answers below a prefix of another server, and leaves its other routes alone', async () => {
  const { server, model } = scriptedServer();
  const host = http.createServer((request, response) => {
    if (!request.url?.startsWith('/llm')) return response.end('the host’s own');
    request.url = request.url.slice('/llm'.length) || '/';
    return server.handle(request, response);
  });
  await new Promise<void>((resolve) => host.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(host.address() as AddressInfo).port}`;
  expect(await (await fetch(`${url}/x`)).text()).toBe('the host’s own');
  expect(await (await fetch(`${url}/llm/v1/models`)).json()).toMatchObject({ data: [{ id: 'm' }] });
  const left = new AbortController();
  const asked = fetch(`${url}/llm/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'm', prompt: 'x' }),
    signal: left.signal,
  });
  const running = await model.started(0);
  left.abort();
  await asked.catch(() => undefined);
  await expect.poll(() => running.cancelled).toBe(true);
  host.close();
});
