/**
 * A pool of engines, each in a process of its own with a share of the cores: a prompt goes to the engine with the fewest
 * requests under way. For machines with several memory nodes, or where one crash must not end all requests.
 *
 *     node examples/worker-pool.mjs [MODEL] [ENGINES]
 */
import os from 'node:os';
import { loadModel } from 'nearmoe';

const [model = 'models/demo', engines = '2'] = process.argv.slice(2);
const count = Number(engines);
const units = Math.max(1, Math.floor(os.availableParallelism() / count));
const pool = await Promise.all(
  Array.from({ length: count }, async () => ({
    // Pinned engines would all take the same cores.
    model: await loadModel({ model, units, pinThreads: false, isolate: 'process' }),
    running: 0,
    answered: 0,
  })),
);

/** @param {string} prompt */
async function generate(prompt) {
  const engine = pool.reduce((least, other) => (other.running < least.running ? other : least));
  engine.running++;
  try {
    const { text } = await engine.model.generate(prompt, { temperature: 0, maxTokens: 24 }).result;
    engine.answered++;
    return text;
  } finally {
    engine.running--;
  }
}

const prompts = Array.from({ length: 8 }, (_, index) => `Story ${index}: once upon a time`);
const texts = await Promise.all(prompts.map(generate));
console.log(JSON.stringify({ texts: texts.length, answered: pool.map(({ answered }) => answered) }));
await Promise.all(pool.map((engine) => engine.model.dispose()));
