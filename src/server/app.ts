/**
 * The routes of the server on Hono, and what holds for all of them: access, request ids, errors in OpenAI's form. Made
 * by server.ts. Generates nothing itself.
 */
import type { HttpBindings } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { Access } from './access.js';
import type { Admission } from './admission.js';
import { answerId, type ServedModel } from './answers.js';
import { ApiError, toApiError, unavailable } from './api-error.js';
import { readJson } from './body.js';
import { chatWork } from './chat.js';
import { completionWork } from './completions.js';
import { respond, type Work } from './generate.js';
import { RequestLife } from './request-life.js';
import type { ServerSettings } from './server-options.js';

export type AppParts = {
  served: ServedModel;
  settings: ServerSettings;
  admission: Admission;
  /** Requests under way, for a server that has to end them. */
  lives: Set<RequestLife>;
};

type Env = { Bindings: Partial<HttpBindings>; Variables: { client: string } };

export function createApp(parts: AppParts): Hono<Env> {
  const { served, settings, admission } = parts;
  const access = new Access(settings.apiKeys, settings.allowedHosts);
  const app = new Hono<Env>();

  app.use(async (c, next) => {
    await next();
    c.res.headers.set('x-request-id', answerId('req'));
    c.res.headers.set('x-content-type-options', 'nosniff');
  });
  app.use(async (c, next) => {
    access.checkHost(c.req.header('host') ?? new URL(c.req.url).host);
    await next();
  });
  app.use('/v1/*', async (c, next) => {
    const address = c.env?.incoming?.socket.remoteAddress ?? 'unknown';
    c.set('client', access.clientOf(c.req.header('authorization'), address));
    await next();
  });

  app.get('/health', (c) => c.json({ status: 'ok' }));
  app.get('/ready', (c) => {
    if (admission.closed) throw unavailable('The server is shutting down', 'shutting_down', 5);
    return c.json({ status: 'ready', model: served.name });
  });
  app.get('/v1/models', (c) => c.json({ object: 'list', data: [served.listing] }));
  app.get('/v1/models/:name{.+}', (c) => {
    served.checkModel(c.req.param('name'));
    return c.json(served.listing);
  });
  app.post('/v1/chat/completions', (c) => generate(c, parts, (body) => chatWork(served, body)));
  app.post('/v1/completions', (c) => generate(c, parts, (body) => completionWork(served, body)));

  app.notFound((c) => {
    const message = `There is nothing at ${c.req.method} ${c.req.path}`;
    return failure(c, new ApiError(404, message, { code: 'unknown_url' }));
  });
  app.onError((error, c) => failure(c, error));
  return app;
}

async function generate(
  c: Context<Env>,
  parts: AppParts,
  understand: (body: unknown) => Work,
): Promise<Response> {
  const { settings, admission, lives } = parts;
  const life = new RequestLife(c.req.raw.signal);
  lives.add(life);
  const onEnd = () => lives.delete(life);
  let work: Work;
  try {
    work = understand(await readJson(c.req.raw, settings.maxBodyBytes));
  } catch (error) {
    life.end();
    onEnd();
    throw error;
  }
  return respond({ admission, settings, client: c.var.client, life, onEnd }, work);
}

function failure(c: Context<Env>, thrown: unknown): Response {
  const error = toApiError(thrown);
  if (error.retryAfterSeconds !== undefined) c.header('retry-after', `${error.retryAfterSeconds}`);
  if (error.status === 401) c.header('www-authenticate', 'Bearer');
  return c.json(error.body, error.status as ContentfulStatusCode);
}
