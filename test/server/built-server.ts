/** The server as built (dist/) over a model of the repository, on a socket, with the official client. For this folder. */
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import type { LoadOptions } from '../../src/index.js';
import type { ServerOptions } from '../../src/server/index.js';
import { nearmoe } from '../engine/built.js';

const builtUrl = new URL('../../dist/server/index.js', import.meta.url).href;
export const { createServer } = (await import(builtUrl)) as typeof import('../../src/server/index.js');

export const demoModel = fileURLToPath(new URL('../../models/demo', import.meta.url));

/** Loads a model and serves it as "demo"; `stop` ends both. */
export async function startServer(load: Partial<LoadOptions> = {}, options: ServerOptions = {}) {
  const model = await nearmoe.loadModel({ model: demoModel, units: 2, ...load });
  const server = createServer(model, { modelName: 'demo', ...options });
  const { url } = await server.listen({ port: 0 });
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
  const stop = async () => {
    await server.close();
    await model.dispose();
  };
  return { model, server, url, client, stop };
}
