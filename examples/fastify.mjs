/**
 * A Fastify service that streams stories: POST /story {"prompt": "..."} answers with text as it is generated. A client
 * that goes away ends its request; closing the server frees the model.
 *
 *     node examples/fastify.mjs [MODEL] [PORT]
 */
import { Readable } from 'node:stream';
import Fastify from 'fastify';
import { loadModel } from 'nearmoe';

const [model = 'models/demo', port = '0'] = process.argv.slice(2);
const engine = await loadModel({ model });
const app = Fastify();

const body = {
  type: 'object',
  required: ['prompt'],
  properties: { prompt: { type: 'string', minLength: 1, maxLength: 4000 } },
};
app.post('/story', { schema: { body } }, (request, reply) => {
  const { prompt } = /** @type {{ prompt: string }} */ (request.body);
  const generation = engine.generate(prompt, { maxTokens: 60 });
  // Destroyed with its client, the stream cancels the generation; a slow client holds up its own request only.
  return reply.type('text/plain; charset=utf-8').send(Readable.from(generation, { objectMode: false }));
});
app.addHook('onClose', () => engine.dispose());

console.log(await app.listen({ port: Number(port) }));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void app.close());
