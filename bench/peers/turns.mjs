/**
 * What both sides of bench/peers.mjs share: answering its messages, the same prompts, the same way to count.
 */

/**
 * @typedef {{ model: string, peerPackage: string, promptTokens: number, genTokens: number, threads: number }} LoadRequest
 * @typedef {(inputIds: number[]) => Promise<{ firstTokenMs: number, decodeMs: number, tokens: number }>} Generate
 * from the request to its first token, and from there to its last one
 */

/** @param {(request: LoadRequest) => Promise<{ vocabSize: number, generate: Generate }>} load */
export function takeTurns(load) {
  /** @type {{ vocabSize: number, generate: Generate, request: LoadRequest } | undefined} */
  let side;
  process.on('message', async (/** @type {any} */ message) => {
    try {
      if (message.type === 'load') {
        const started = performance.now();
        side = { ...(await load(message.request)), request: message.request };
        process.send?.({ loadMs: performance.now() - started });
      } else if (side) process.send?.(await run(side, message.seed));
    } catch (error) {
      process.send?.({ error: error instanceof Error ? error.stack : `${error}` });
    }
  });
  process.on('disconnect', () => process.exit(0));
}

/** @param {{ vocabSize: number, generate: Generate, request: LoadRequest }} side @param {number} seed */
async function run({ vocabSize, generate, request }, seed) {
  const { promptTokens, genTokens } = request;
  let state = seed >>> 0;
  const inputIds = Array.from({ length: promptTokens }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * (vocabSize - 1));
  });
  const { firstTokenMs, decodeMs, tokens } = await generate(inputIds);
  if (tokens !== genTokens) throw new Error(`expected ${genTokens} tokens, got ${tokens}`);
  return {
    prefillTokensPerSecond: (promptTokens * 1e3) / firstTokenMs,
    decodeTokensPerSecond: ((genTokens - 1) * 1e3) / decodeMs,
  };
}
