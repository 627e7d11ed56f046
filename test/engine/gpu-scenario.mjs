/**
 * One golden prompt through the package with the emulated GPU, as a program of its own: faults and the device's
 * properties are read from the environment when the library is opened, once in a process. Arguments: fixture folder,
 * prompt's token ids as JSON. Prints tokens, the GPU in the end, and the plan's warnings as JSON.
 */
import { loadModel } from '../../dist/index.js';

const [model = '', ids = '[]'] = process.argv.slice(2);
const llm = await loadModel({
  model,
  gpu: 'emulated',
  policy: 'gpu-on-demand',
  units: 2,
  pinThreads: false,
  onProgress: () => {},
});
try {
  const options = { temperature: 0, maxTokens: 24, ignoreEos: true };
  const { tokenIds } = await llm.generate({ inputIds: JSON.parse(ids) }, options).result;
  const { warnings, gpu } = await llm.plan();
  console.log(JSON.stringify({ tokenIds: Array.from(tokenIds), warnings, gpu }));
} finally {
  await llm.dispose();
}
