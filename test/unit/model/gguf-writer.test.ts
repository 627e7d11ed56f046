/** What the GGUF writer puts out is what the reader finds, at sizes of published vocabularies. */
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readGgufHeader } from '../../../src/model/gguf/reader.js';
import { writeGguf } from '../../../src/model/gguf/writer.js';
import { newFolder } from './tiny-checkpoint.js';

it('writes a vocabulary of 262,144 tokens', () => {
  const tokens = Array.from({ length: 262_144 }, (_, id) => `token ${id}`);
  const path = join(newFolder(), 'vocabulary.gguf');
  const metadata = new Map([['tokenizer.ggml.tokens', { type: 'strings' as const, value: tokens }]]);
  for (const _ of writeGguf(path, metadata, []));
  expect(readGgufHeader(path).metadata.texts('tokenizer.ggml.tokens')).toEqual(tokens);
});
