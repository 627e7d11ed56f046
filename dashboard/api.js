/**
 * What the page asks of the server it came from: live figures and chat. Used by main.js and chat.js. Keeps the API key
 * for this tab only.
 */

/** @typedef {import('./live.js').Live} Live */

const KEY = 'nearmoe-key';

export class RequestError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** @returns {Promise<Live>} */
export async function fetchLive() {
  const response = await ask('v1/stats?timeline=1');
  return response.json();
}

/**
 * Streams one answer.
 * @param {object} body of a chat completion, without `stream`
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any, void>} chunks as the API gives them
 */
export async function* streamChat(body, signal) {
  const response = await ask('v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of serverEvents(response)) {
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new RequestError(200, chunk.error.message);
    yield chunk;
  }
}

/**
 * @param {string} path @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
async function ask(path, init = {}) {
  const headers = new Headers(init.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set('authorization', `Bearer ${key}`);
  const response = await fetch(path, { ...init, headers });
  if (response.ok) return response;
  const body = await response.json().catch(() => undefined);
  throw new RequestError(response.status, body?.error?.message ?? `the server answered ${response.status}`);
}

/**
 * The data of server-sent events; comments are passed over.
 * @param {Response} response
 * @returns {AsyncGenerator<string, void>}
 */
async function* serverEvents(response) {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (held + value).split('\n\n');
    held = events.pop() ?? '';
    for (const event of events) if (event.startsWith('data: ')) yield event.slice('data: '.length);
  }
}
