/**
 * Response formats as grammars: what JSON schemas and regular expressions give, one behind the other, one of several,
 * and texts between them, whose special tokens are written as such. Called by constraint.ts.
 */
import { choice, type Expression, type Grammar, sequence, special, text } from './expression.js';
import { jsonObjectGrammar, schemaGrammar } from './json-schema.js';
import { regexGrammar } from './regex.js';
import type { PartFormat } from './response-format.js';

/** `place` names the option in errors; `specials` are the texts of the model's special tokens. Throws OptionError. */
export function formatGrammar(format: PartFormat, place: string, specials: readonly string[]): Grammar {
  const all = (
    formats: readonly PartFormat[],
    name: string,
    join: (...parts: Expression[]) => Expression,
  ) => {
    const grammars = formats.map((part, index) =>
      formatGrammar(part, `${place}.${name}[${index}]`, specials),
    );
    // Rules of different places have different names.
    const rules = new Map(grammars.flatMap((grammar) => [...grammar.rules]));
    return { root: join(...grammars.map(({ root }) => root)), rules };
  };
  switch (format.type) {
    case 'json_object':
      return jsonObjectGrammar();
    case 'json_schema':
      return schemaGrammar(format.schema, `${place}.schema`);
    case 'regex':
      return regexGrammar(format.pattern, `${place}.pattern`);
    case 'literal':
      return { root: literal(format.text, specials), rules: new Map() };
    case 'sequence':
      return all(format.parts, 'parts', sequence);
    case 'choice':
      return all(format.options, 'options', choice);
  }
}

/** The text, cut where it names special tokens: the first one that begins, of several the longest. */
function literal(value: string, specials: readonly string[]): Expression {
  const parts: Expression[] = [];
  for (let rest = value; rest !== ''; ) {
    const found = firstOf(rest, specials);
    const before = found === undefined ? rest : rest.slice(0, found.at);
    if (before !== '') parts.push(text(before));
    if (found !== undefined) parts.push(special(found.mark));
    rest = rest.slice(before.length + (found?.mark.length ?? 0));
  }
  return sequence(...parts);
}

function firstOf(value: string, specials: readonly string[]): { at: number; mark: string } | undefined {
  let first: { at: number; mark: string } | undefined;
  for (const mark of specials) {
    const at = mark === '' ? -1 : value.indexOf(mark);
    const isLonger = at === first?.at && mark.length > first.mark.length;
    if (at >= 0 && (first === undefined || at < first.at || isLonger)) first = { at, mark };
  }
  return first;
}
