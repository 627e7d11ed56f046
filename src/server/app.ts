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
import { dashboardResponse, readDashboard } from './dashboard.js';
import { respond, type Work } from './generate.js';
import type { LatencyWindow } from './latency-window.js';
import { liveStats } from './live-stats.js';
import type { Endpoint, Metrics, Outcome } from './metrics.js';
import { RequestLife } from './request-life.js';
import type { ServerSettings } from './server-options.js';

export type AppParts = {
  served: ServedModel;
  settings: ServerSettings;
  admission: Admission;
  metrics: Metrics;
  latencies: LatencyWindow;
  /** Requests under way, for a server that has to end them. */
  lives: Set<RequestLife>;
};

/** Routes as metrics name them; whatever else is asked for is one more. */
const ROUTES = new Set([
  '/',
  '/health',
  '/ready',
  '/metrics',
  '/v1/models',
  '/v1/stats',
  '/v1/chat/completions',
  '/v1/completions',
]);

type Env = { Bindings: Partial<HttpBindings>; Variables: { client: string } };

export function createApp(parts: AppParts): Hono<Env> {
  const { served, settings } = parts;
  const access = new Access(settings.apiKeys, settings.allowedHosts);
  const app = new Hono<Env>();

  app.use(async (c, next) => {
    await next();
    parts.metrics.answered(ROUTES.has(c.req.path) ? c.req.path : 'other', c.res.status);
    c.res.headers.set('x-request-id', answerId('req'));
    c.res.headers.set('x-content-type-options', 'nosniff');
  });
  app.use(async (c, next) => {
    access.checkHost(c.req.header('host') ?? new URL(c.req.url).host);
    await next();
  });
  const identify = async (c: Context<Env>, next: () => Promise<void>) => {
    const address = c.env?.incoming?.socket.remoteAddress ?? 'unknown';
    c.set('client', access.clientOf(c.req.header('authorization'), address));
    await next();
  };
  app.use('/v1/*', identify);
  app.use('/metrics', identify);

  addWatchRoutes(app, parts);
  if (settings.dashboard) addDashboard(app);
  app.post('/v1/chat/completions', (c) => generate(c, parts, 'chat', (body) => chatWork(served, body)));
  app.post('/v1/completions', (c) =>
    generate(c, parts, 'completions', (body) => completionWork(served, body)),
  );

  app.notFound((c) => {
    const message = `There is nothing at ${c.req.method} ${c.req.path}`;
    return failure(c, new ApiError(404, message, { code: 'unknown_url' }));
  });
  app.onError((thrown, c) => {
    const error = toApiError(thrown);
    if (error.status === 500) settings.onError(thrown);
    return failure(c, error);
  });
  return app;
}

/** What the server and its engine are and do. */
function addWatchRoutes(app: Hono<Env>, { served, settings, admission, metrics, latencies }: AppParts): void {
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
  app.get('/metrics', async (c) =>
    c.text(await metrics.text(), 200, { 'content-type': metrics.registry.contentType }),
  );
  app.get('/v1/stats', async (c) => {
    const { readBandwidthGBs } = settings;
    const source = { model: served.model, name: served.name, admission, latencies, readBandwidthGBs };
    return c.json(await liveStats(source, c.req.query('timeline') === '1'));
  });
}

function addDashboard(app: Hono<Env>): void {
  for (const [path, file] of readDashboard())
    app.get(path, (c) => dashboardResponse(file, c.req.header('if-none-match')));
}

async function generate(
  c: Context<Env>,
  parts: AppParts,
  endpoint: Endpoint,
  understand: (body: unknown) => Work,
): Promise<Response> {
  const { settings, admission, lives, metrics, latencies } = parts;
  const life = new RequestLife(c.req.raw.signal);
  lives.add(life);
  const onEnd = (outcome: Outcome) => {
    lives.delete(life);
    metrics.ended(endpoint, outcome);
    const { error } = outcome;
    if (started && error instanceof ApiError && error.status === 500) settings.onError(error.cause);
    if (outcome.firstPartMs !== undefined) latencies.add(outcome.firstPartMs);
  };
  let started = false;
  let work: Work;
  try {
    work = understand(await readJson(c.req.raw, settings.maxBodyBytes, c.env?.incoming));
  } catch (error) {
    life.end();
    const times = { queueMs: undefined, firstPartMs: undefined, totalMs: life.ageMs };
    onEnd({ results: [], error: toApiError(error), ...times });
    throw error;
  }
  const response = await respond({ admission, settings, client: c.var.client, life, onEnd }, work);
  // What goes wrong in a stream from now on has no status that would tell it.
  started = true;
  return response;
}

function failure(c: Context<Env>, error: ApiError): Response {
  if (error.retryAfterSeconds !== undefined) c.header('retry-after', `${error.retryAfterSeconds}`);
  if (error.status === 401) c.header('www-authenticate', 'Bearer');
  return c.json(error.body, error.status as ContentfulStatusCode);
}
