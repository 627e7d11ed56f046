/**
 * Takes tokens out of a row of logits: those whose bit a response format leaves clear become impossible. Owned by the
 * sampler of one request.
 */
export class LogitMask {
  #row = new Float32Array(0);

  /** A copy of `logits` [vocabSize] with -Infinity where the bit of `allowed` is 0; valid until the next call. */
  apply(logits: Float32Array, allowed: Uint32Array): Float32Array {
    if (this.#row.length !== logits.length) this.#row = new Float32Array(logits.length);
    const row = this.#row;
    row.set(logits);
    for (let word = 0; word < allowed.length; word++) {
      // Inside of strings few tokens are ruled out, elsewhere nearly all: only the clear bits are visited.
      let clear = ~(allowed[word] ?? 0);
      if (clear === -1) row.fill(-Infinity, 32 * word, 32 * word + 32);
      else
        for (; clear !== 0; clear &= clear - 1) row[32 * word + 31 - Math.clz32(clear & -clear)] = -Infinity;
    }
    return row;
  }
}
