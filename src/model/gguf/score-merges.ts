/**
 * SentencePiece BPE stores a score for each token and no merges; the merges follow from the scores: a pair may merge
 * where its text is a token, the one with the highest score first. Called by tokenizer.ts for `llama` vocabularies.
 */
import { TOKEN_KIND } from './vocabulary.js';

type Merge = { left: string; right: string; score: number };

/** Pairs in the order in which they are to be merged; the order that transformers gives to converted vocabularies. */
export function mergesOfScores(
  tokens: readonly string[],
  scores: ArrayLike<number>,
  kinds: ArrayLike<number>,
): [string, string][] {
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    if (kinds[id] === TOKEN_KIND.normal || kinds[id] === TOKEN_KIND.userDefined) ids.set(token, id);
  }
  const merges: Merge[] = [];
  for (const [token, id] of ids) {
    if (kinds[id] === TOKEN_KIND.normal) merges.push(...splitsOf(token, scores[id] ?? 0, ids));
  }
  merges.sort(
    (a, b) => b.score - a.score || b.left.length - a.left.length || b.right.length - a.right.length,
  );
  return merges.map(({ left, right }) => [left, right]);
}

/** All ways to put a token together from two others. */
function splitsOf(token: string, score: number, ids: ReadonlyMap<string, number>): Merge[] {
  const splits: Merge[] = [];
  let cut = 0;
  for (const char of token) {
    cut += char.length;
    const [left, right] = [token.slice(0, cut), token.slice(cut)];
    if (right !== '' && ids.has(left) && ids.has(right)) splits.push({ left, right, score });
  }
  const idOf = (text: string) => ids.get(text) ?? 0;
  return splits.sort((a, b) => idOf(a.left) - idOf(b.left) || idOf(a.right) - idOf(b.right));
}
