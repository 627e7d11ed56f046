/**
 * Values of tool arguments that a model wrote as bare text between tags: what they are by the function's schema. Used by
 * tool-call-forms.ts.
 */

/** Words of Python that models write for JSON's. */
const PYTHON_WORDS: Record<string, unknown> = { True: true, False: false, None: null };

/**
 * The value of argument `key` under a schema of the arguments. What may be a string stays one; anything else is read as
 * JSON, and stays text where it is none: whether it is valid is for the one who runs the function to say.
 */
export function typedValue(
  text: string,
  key: string,
  parameters: Record<string, unknown> | undefined,
): unknown {
  const types = typesOf(propertyOf(parameters, key));
  if (types.has('string')) return types.has('null') && text.trim() === 'null' ? null : text;
  const word = text.trim();
  if (types.size > 0 && Object.hasOwn(PYTHON_WORDS, word)) return PYTHON_WORDS[word];
  try {
    return JSON.parse(word);
  } catch {
    return text;
  }
}

function propertyOf(schema: Record<string, unknown> | undefined, key: string): unknown {
  const properties = schema?.properties;
  if (typeof properties !== 'object' || properties === null || !Object.hasOwn(properties, key))
    return undefined;
  return (properties as Record<string, unknown>)[key];
}

/** Types that a schema names, also in its branches and values; empty where it says nothing. */
export function typesOf(schema: unknown): Set<string> {
  if (typeof schema !== 'object' || schema === null) return new Set();
  const { type, anyOf, oneOf, enum: values, const: value } = schema as Record<string, unknown>;
  const named = (Array.isArray(type) ? type : [type]).filter((name) => typeof name === 'string');
  const listed = [...(Array.isArray(values) ? values : []), ...(value === undefined ? [] : [value])];
  const branches = [anyOf, oneOf].flatMap((list) => (Array.isArray(list) ? list : []));
  return new Set([
    ...named,
    ...listed.map((entry) => (entry === null ? 'null' : typeof entry)),
    ...branches.flatMap((branch) => [...typesOf(branch)]),
  ]);
}
