/**
 * Greedy tokens of golden checkpoints (test/golden/fixtures, made with Hugging Face transformers) through the built
 * package, one line each. aarch64.mjs runs this file inside an AArch64 Node under qemu-user, where vitest's own
 * binaries do not exist. Arguments: the folder of the built package, the GPU lane ("off" or "emulated"), the folder of
 * the fixtures, fixture names.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [packageFolder = '', gpu = '', fixtures = '', ...names] = process.argv.slice(2);
const { loadModel } = await import(pathToFileURL(path.join(packageFolder, 'dist/index.js')).href);

for (const name of names) {
  const folder = path.join(fixtures, name);
  const { prompts } = JSON.parse(readFileSync(path.join(folder, 'golden.json'), 'utf8'));
  const model = await loadModel({ model: folder, units: 2, pinThreads: false, gpu, kvTokens: 1024 });
  for (const prompt of prompts) {
    const options = { maxTokens: prompt.greedyIds.length, temperature: 0, ignoreEos: true };
    const { tokenIds } = await model.generate({ inputIds: prompt.inputIds }, options).result;
    const same = tokenIds.join() === prompt.greedyIds.join();
    console.log(
      same
        ? `ok ${name} ${prompt.name}`
        : `FAILED ${name} ${prompt.name}: expected ${prompt.greedyIds}, got ${tokenIds}`,
    );
    if (!same) process.exitCode = 1;
  }
  await model.dispose();
}
