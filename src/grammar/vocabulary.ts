/**
 * The tokens of a model as a tree of bytes: tokens with the same beginning share its nodes, so that a walk that fails
 * at a byte skips all tokens behind it. Built once per model, when the first constrained request comes; read by
 * token-masks.ts.
 */

export class Vocabulary {
  /** Ids of the logits row. */
  readonly size: number;
  readonly eosIds: readonly number[];
  /** Bytes of the longest token. */
  readonly maxTokenBytes: number = 0;
  /** Nodes in depth-first order, the root first; `ends` is the number of the first node outside of a node's subtree. */
  readonly nodeCount: number;
  readonly bytes: Uint8Array;
  readonly depths: Uint16Array;
  readonly ends: Int32Array;
  /** Tokens that end at node n: tokenIds[firstTokens[n]] to before tokenIds[firstTokens[n + 1]]. */
  readonly firstTokens: Int32Array;
  readonly tokenIds: Int32Array;
  #bytesOf: (tokenId: number) => Uint8Array;
  #known = new Map<number, Uint8Array>();

  /**
   * `bytesOf` gives a token's bytes, none for tokens that are no text (special ones); `eosIds` end a text.
   */
  constructor(size: number, bytesOf: (tokenId: number) => Uint8Array, eosIds: readonly number[]) {
    this.size = size;
    this.eosIds = eosIds.filter((id) => id < size);
    this.#bytesOf = bytesOf;
    // One character per byte: strings are compared faster than arrays.
    const idsOf = new Map<string, number[]>();
    const isEos = new Set(eosIds);
    let most = 1;
    for (let id = 0; id < size; id++) {
      const key = isEos.has(id) ? '' : latin1(bytesOf(id));
      if (key === '') continue;
      const ids = idsOf.get(key);
      if (ids === undefined) idsOf.set(key, [id]);
      else ids.push(id);
      most += key.length;
      this.maxTokenBytes = Math.max(this.maxTokenBytes, key.length);
    }
    const keys = [...idsOf.keys()].sort();
    this.bytes = new Uint8Array(most);
    this.depths = new Uint16Array(most);
    this.ends = new Int32Array(most);
    this.firstTokens = new Int32Array(most + 1);
    this.tokenIds = Int32Array.from(keys.flatMap((key) => idsOf.get(key) ?? []));
    this.nodeCount = this.#build(keys, (key) => idsOf.get(key)?.length ?? 0);
  }

  /** Kept for tokens that were asked for: texts use few of them. */
  bytesOf(tokenId: number): Uint8Array {
    let bytes = this.#known.get(tokenId);
    if (bytes === undefined) {
      bytes = this.#bytesOf(tokenId);
      this.#known.set(tokenId, bytes);
    }
    return bytes;
  }

  /** Nodes in the order of sorted tokens; returns their number. */
  #build(keys: readonly string[], tokensOf: (key: string) => number): number {
    let count = 1;
    let token = 0;
    const open = [0];
    let previous = '';
    const close = (depth: number) => {
      while (open.length > depth + 1) this.ends[open.pop() ?? 0] = count;
    };
    for (const key of keys) {
      let shared = 0;
      while (shared < previous.length && key.charCodeAt(shared) === previous.charCodeAt(shared)) shared++;
      close(shared);
      for (let at = shared; at < key.length; at++) {
        this.bytes[count] = key.charCodeAt(at);
        this.depths[count] = at + 1;
        this.firstTokens[count] = token;
        open.push(count++);
      }
      token += tokensOf(key);
      previous = key;
    }
    close(0);
    this.ends[0] = count;
    // A node's tokens come before those of its children, so that the next node's first token ends them.
    this.firstTokens[count] = token;
    return count;
  }
}

function latin1(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
