/**
 * How published mixtures of experts split text before BPE, on texts of many scripts: the ids that Hugging Face's
 * tokenizers library gives (scripts/goldens/pre_tokenizer_fixtures.py), from tokenizer.json and from the same as GGUF
 * metadata, which names the splits.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PRE_TOKENIZERS } from '../../../src/model/gguf/pre-tokenizers.js';
import { readGgufHeader } from '../../../src/model/gguf/reader.js';
import { readGgufTokenizer } from '../../../src/model/gguf/tokenizer.js';
import { vocabularyMetadata } from '../../../src/model/gguf/vocabulary-metadata.js';
import { writeGguf } from '../../../src/model/gguf/writer.js';
import type { JsonObject } from '../../../src/model/json-file.js';
import { Tokenizer } from '../../../src/model/tokenizer.js';
import { newFolder } from './tiny-checkpoint.js';

type Fixture = { tokenizer: JsonObject; cases: { text: string; ids: number[] }[] };
const FIXTURES: Record<string, Fixture> = JSON.parse(
  readFileSync('test/fixtures/tokenizers/pre-tokenizers.json', 'utf8'),
);

function throughGguf(tokenizerJson: JsonObject, vocabSize: number) {
  const none = { bosId: undefined, eosId: undefined, unknownId: undefined, padId: undefined };
  const metadata = vocabularyMetadata({ tokenizerJson, vocabSize, ...none, addsBos: false, path: 'x' });
  const path = join(newFolder(), 'vocabulary.gguf');
  for (const _ of writeGguf(path, metadata, []));
  const read = readGgufHeader(path).metadata;
  return { tokenizer: readGgufTokenizer(read, vocabSize), pre: read.text('tokenizer.ggml.pre') ?? '' };
}

describe.each(Object.entries(FIXTURES))('%s', (name, { tokenizer, cases }) => {
  const hub = new Tokenizer(tokenizer, {}, name);

  it.each(cases)('$text', ({ text, ids }) => {
    expect(hub.encode(text)).toEqual(ids);
    expect(hub.decode(ids)).toBe(text);
  });

  it('the same from a GGUF file, which names the splits', () => {
    const { tokenizer: gguf, pre } = throughGguf(tokenizer, hub.vocabSize);
    expect(PRE_TOKENIZERS.get(pre)?.patterns).toEqual(PRE_TOKENIZERS.get(name)?.patterns);
    for (const { text, ids } of cases) expect(gguf.encode(text)).toEqual(ids);
  });
});
