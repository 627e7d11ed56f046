/**
 * One life-cycle scenario in a process of its own, so that a crash shows as an exit status: `node scenario.mjs NAME
 * FOLDER`. Run by lifecycle.test.ts with --expose-gc; prints one JSON line. Uses the package as built.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

/** @type {typeof import('../../src/index.js')} */
const { loadModel } = await import(new URL('../../dist/index.js', import.meta.url).href);

const folder = isMainThread ? (process.argv[3] ?? '') : String(workerData);
const options = { model: folder, units: 2, pinThreads: false };
const endless = { temperature: 0, ignoreEos: true, maxTokens: 200 };

/** @type {Record<string, () => Promise<unknown>>} */
const scenarios = {
  /** Loads, generates and disposes 100 times; memory after 40 and after 100 rounds. */
  async rounds() {
    /** @type {number[]} */
    const rssBytes = [];
    for (let round = 1; round <= 100; round++) {
      const gpu = round % 2 === 0 ? 'host' : 'off';
      const model = await loadModel({ ...options, gpu });
      await model.generate('Hello', { ...endless, maxTokens: 4 }).result;
      await model.dispose();
      globalThis.gc?.();
      rssBytes.push(process.memoryUsage.rss());
    }
    /** @param {number} from */
    const mean = (from) => rssBytes.slice(from, from + 20).reduce((sum, bytes) => sum + bytes, 0) / 20;
    return { middleBytes: mean(30), endBytes: mean(80) };
  },

  /** A worker that embeds the engine is terminated while steps run; others in the process go on. */
  async terminate() {
    let text = '';
    for (let round = 0; round < 6; round++) {
      const worker = new Worker(new URL(import.meta.url), { workerData: folder });
      await once(worker, 'message');
      await new Promise((resolve) => setTimeout(resolve, 3 * round));
      await worker.terminate();
      const model = await loadModel(options);
      text = (await model.generate('Hello', { ...endless, maxTokens: 8 }).result).text;
      await model.dispose();
    }
    return { text };
  },

  /** The process ends in the middle of a step, without dispose. */
  async exit() {
    const model = await loadModel(options);
    for await (const _ of model.generate('Hello', endless)) {
      console.log(JSON.stringify({ exiting: true }));
      process.exit(7);
    }
  },

  /** Nothing is disposed: an idle model must not keep the process alive. */
  async forget() {
    const model = await loadModel(options);
    const { text } = await model.generate('Hello', { ...endless, maxTokens: 8 }).result;
    return { text };
  },

  /** Memory that loading takes at its peak, beside the bytes that are held afterwards. */
  async peak() {
    const beforeBytes = statusBytes('VmRSS');
    const model = await loadModel({ ...options, maxContext: 512, kvTokens: 512 });
    const heldBytes = model.info.memory.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const peakBytes = statusBytes('VmHWM') - beforeBytes;
    await model.dispose();
    return { heldBytes, peakBytes };
  },

  /** dispose() while requests run, and while loading. */
  async disposals() {
    const outcomes = [];
    for (let round = 0; round < 10; round++) {
      const model = await loadModel(options);
      const results = [1, 2, 3].map(() => model.generate('Hello', endless).result);
      await new Promise((resolve) => setTimeout(resolve, round));
      await model.dispose();
      for (const outcome of await Promise.allSettled(results)) {
        outcomes.push(outcome.status === 'rejected' ? outcome.reason.code : 'done');
      }
    }
    return { outcomes: [...new Set(outcomes)] };
  },
};

/** @param {string} name a line of /proc/self/status */
function statusBytes(name) {
  const line = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(line?.[1]) * 1024;
}

if (isMainThread) {
  const result = await scenarios[process.argv[2] ?? '']?.();
  console.log(JSON.stringify(result));
} else {
  const model = await loadModel(options);
  for await (const _ of model.generate('Hello', endless)) parentPort?.postMessage('computing');
}
