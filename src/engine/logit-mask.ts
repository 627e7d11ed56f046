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
      const bits = allowed[word] ?? 0;
      if (bits === 0xffffffff) continue;
      if (bits === 0) row.fill(-Infinity, 32 * word, 32 * word + 32);
      else
        for (let bit = 0; bit < 32; bit++) if (((bits >>> bit) & 1) === 0) row[32 * word + bit] = -Infinity;
    }
    return row;
  }
}
