/**
 * An Express service that answers in JSON of a fixed shape: POST /hero {"story": "..."} gives {"name", "age", "brave"}.
 * The engine runs in a process of its own: a crash of native code becomes a 503, and the service goes on.
 *
 *     node examples/express.mjs [MODEL] [PORT]
 */
import express from 'express';
import { EngineCrashedError, loadModel, PromptError } from 'nearmoe';

const [model = 'models/demo', port = '0'] = process.argv.slice(2);
const engine = await loadModel({ model, isolate: 'process' });
const app = express();
const schema = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 20 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    brave: { type: 'boolean' },
  },
  required: ['name', 'age', 'brave'],
};

app.post('/hero', express.json({ limit: '16kb' }), async (request, response) => {
  const controller = new AbortController();
  response.on('close', () => controller.abort());
  try {
    const { text } = await engine.generate(String(request.body?.story ?? ''), {
      maxTokens: 120,
      responseFormat: { type: 'json_schema', schema },
      signal: controller.signal,
    }).result;
    response.json(JSON.parse(text));
  } catch (error) {
    if (controller.signal.aborted) return;
    const status = error instanceof PromptError ? 400 : error instanceof EngineCrashedError ? 503 : 500;
    response.status(status).json({ error: error instanceof Error ? error.message : 'unknown' });
  }
});

const server = app.listen(Number(port), '127.0.0.1', () => {
  const address = server.address();
  console.log(`http://127.0.0.1:${typeof address === 'object' ? address?.port : address}`);
});
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close();
    void engine.dispose();
  });
}
