/**
 * A file of prompts, one a line, to a file of answers, one JSON object a line in the same order, with a progress bar.
 * All prompts are given to the engine at once; it computes as many together as it has room for.
 *
 *     node examples/batch.mjs PROMPTS.txt ANSWERS.jsonl [MODEL]
 */

import { once } from 'node:events';
import { createWriteStream, readFileSync } from 'node:fs';
import { loadModel } from 'nearmoe';

const [input, output, model = 'models/demo'] = process.argv.slice(2);
if (input === undefined || output === undefined) {
  console.error('usage: node examples/batch.mjs PROMPTS.txt ANSWERS.jsonl [MODEL]');
  process.exit(2);
}
const prompts = readFileSync(input, 'utf8')
  .split('\n')
  .filter((line) => line.trim() !== '');
const engine = await loadModel({ model });
const file = createWriteStream(output);
let done = 0;

function showProgress() {
  const width = 30;
  const filled = prompts.length === 0 ? width : Math.round((width * done) / prompts.length);
  const bar = '#'.repeat(filled) + '.'.repeat(width - filled);
  process.stderr.write(`\r[${bar}] ${done}/${prompts.length}${done === prompts.length ? '\n' : ''}`);
}

showProgress();
const answers = prompts.map(async (prompt) => {
  try {
    const { text, finishReason, usage } = await engine.generate(prompt, { temperature: 0, maxTokens: 32 })
      .result;
    return { prompt, text, finishReason, usage };
  } catch (error) {
    // One prompt that is too long does not stop the others.
    return { prompt, error: error instanceof Error ? error.message : String(error) };
  } finally {
    done++;
    showProgress();
  }
});
for (const answer of answers) {
  if (!file.write(`${JSON.stringify(await answer)}\n`)) await once(file, 'drain');
}
file.end();
await once(file, 'finish');
await engine.dispose();
