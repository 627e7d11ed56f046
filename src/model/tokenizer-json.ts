/**
 * What must hold of a tokenizer.json before the tokenizer library sees it: the library trusts ids and would make tables
 * of their size. Called by tokenizer.ts. Leaves all else to the library, whose complaints become TokenizerErrors too.
 */
import { describeValue, TokenizerError } from '../errors.js';
import { describeKind, isJsonObject, type JsonObject } from './json-file.js';

/** Ids go up to 260,000 in published models. */
const MAX_TOKEN_ID = 2 ** 22;

/** For all others the library would fall back to looking up whole words. */
const MODEL_TYPES: readonly unknown[] = ['BPE', 'Unigram', 'WordPiece'];

/** Files from before 2020 do not name the type. */
function impliedType(model: JsonObject): string | undefined {
  if (Array.isArray(model.vocab)) return 'Unigram';
  return Array.isArray(model.merges) ? 'BPE' : undefined;
}

/** The parts that the library insists on, with the file's own in place, and the highest id. Throws TokenizerError. */
export function checkedTokenizerJson(
  json: JsonObject,
  path: string,
): { json: JsonObject; highestId: number } {
  const fail = (field: string, expected: string, got: string): never => {
    throw new TokenizerError(`${path}: \`${field}\`: expected ${expected}, got ${got}`);
  };
  const { model, added_tokens: added = [] } = json;
  if (!isJsonObject(model)) return fail('model', 'an object', describeKind(model));
  if (!Array.isArray(added)) return fail('added_tokens', 'a list', describeKind(added));
  let highestId = -1;
  const note = (field: string, id: unknown) => {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > MAX_TOKEN_ID) {
      fail(field, `an id from 0 to ${MAX_TOKEN_ID}`, describeValue(id));
    } else highestId = Math.max(highestId, id);
  };
  const { vocab } = model;
  const type = model.type ?? impliedType(model);
  if (!MODEL_TYPES.includes(type))
    fail('model.type', `one of ${MODEL_TYPES.join(', ')}`, describeValue(type));
  if (Array.isArray(vocab)) highestId = vocab.length - 1;
  else if (isJsonObject(vocab))
    for (const token of Object.keys(vocab)) note(`model.vocab["${token}"]`, vocab[token]);
  else fail('model.vocab', 'an object or a list', describeKind(vocab));
  for (const [i, token] of added.entries()) {
    if (!isJsonObject(token) || typeof token.content !== 'string' || token.content === '') {
      fail(`added_tokens[${i}]`, 'an object with an id and its content', describeKind(token));
    } else note(`added_tokens[${i}].id`, token.id);
  }
  if (highestId < 0) fail('model.vocab', 'tokens', 'none');
  const parts = { normalizer: null, post_processor: null, decoder: null };
  const preTokenizer = portableStep(json.pre_tokenizer ?? null);
  const checked = {
    ...parts,
    ...json,
    pre_tokenizer: preTokenizer,
    model: { ...model, type },
    added_tokens: added,
  };
  return { json: checked, highestId };
}

/** A pre-tokenizer whose expressions JavaScript takes: `[a&&[^b]]` is Oniguruma's alone. */
function portableStep(step: unknown): unknown {
  if (!isJsonObject(step)) return step;
  if (Array.isArray(step.pretokenizers)) {
    return { ...step, pretokenizers: step.pretokenizers.map(portableStep) };
  }
  const regex = isJsonObject(step.pattern) ? step.pattern.Regex : undefined;
  if (typeof regex !== 'string') return step;
  const portable = regex.replace(/\[([^[\]]*)&&\[\^([^[\]]*)\]\]/g, '(?:(?![$2])[$1])');
  return { ...step, pattern: { Regex: portable } };
}
