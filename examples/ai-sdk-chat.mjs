/**
 * A chat in the terminal through the Vercel AI SDK: each line is a question, the answer streams, the conversation goes on.
 *
 *     node examples/ai-sdk-chat.mjs [MODEL]
 */
import { createInterface } from 'node:readline';
import { streamText } from 'ai';
import { loadModel } from 'nearmoe';
import { nearmoeLanguageModel } from 'nearmoe/ai-sdk';

const [path = 'models/demo'] = process.argv.slice(2);
const engine = await loadModel({ model: path });
const model = nearmoeLanguageModel(engine);

/** @type {import('ai').ModelMessage[]} */
const messages = [];
for await (const content of createInterface({ input: process.stdin })) {
  messages.push({ role: 'user', content });
  const { textStream, text } = streamText({ model, messages, maxOutputTokens: 60 });
  for await (const part of textStream) process.stdout.write(part);
  process.stdout.write('\n');
  messages.push({ role: 'assistant', content: await text });
}
await engine.dispose();
