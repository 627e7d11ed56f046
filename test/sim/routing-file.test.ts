/** Recorded routing from files: wrong ones are refused with file, field, expected and got. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ModelFormatError } from '../../src/errors.js';
import { PointRunner } from '../../src/sim/run-point.js';
import { basePoint } from '../../src/sim/suites.js';
import { readRouting } from '../../src/sim/workload/routing-file.js';

const folder = mkdtempSync(path.join(tmpdir(), 'nearmoe-routing-'));
afterAll(() => rmSync(folder, { recursive: true }));

const ids = (values: number[]) => Buffer.from(Uint16Array.from(values).buffer).toString('base64');
const good = {
  format: 'nearmoe-routing',
  version: 1,
  numExperts: 4,
  topK: 2,
  layers: [0, 1],
  tokens: 2,
  promptTokens: 1,
  ids: ids([0, 1, 1, 3, 0, 2, 2, 3]),
};

function written(name: string, content: unknown): string {
  const file = path.join(folder, name);
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
}

describe('a routing file', () => {
  it('is read as it was written', () => {
    const record = readRouting(written('good.json', good), 0);
    expect(record).toMatchObject({ numExperts: 4, topK: 2, layers: [0, 1], tokens: 2, promptTokens: 1 });
    expect([...record.ids]).toEqual([0, 1, 1, 3, 0, 2, 2, 3]);
  });

  it.each([
    [
      'format.json',
      { ...good, format: 'other' },
      /format.json: format: expected "nearmoe-routing", got "other"/,
    ],
    ['version.json', { ...good, version: 2 }, /version: expected 1, got 2/],
    ['experts.json', { ...good, numExperts: 0 }, /numExperts: expected .*, got 0/],
    ['layers.json', { ...good, layers: 'all' }, /layers: expected .*, got "all"/],
    ['prompt.json', { ...good, promptTokens: 3 }, /promptTokens: expected at most 2 \(tokens\), got 3/],
    ['short.json', { ...good, ids: ids([0, 1]) }, /ids: expected 8 experts, got 2/],
    [
      'high.json',
      { ...good, ids: ids([0, 1, 1, 3, 0, 2, 2, 9]) },
      /ids of token 1: expected .* below 4, got 9/,
    ],
    [
      'twice.json',
      { ...good, ids: ids([0, 0, 1, 3, 0, 2, 2, 3]) },
      /ids of token 0: expected different experts/,
    ],
    ['no.json', 'no JSON', /no.json: expected JSON/],
    [
      'ragged.jsonl',
      '{"layers":[[0,1],[2,3]]}\n{"layers":[[0,1],[2]]}',
      /line 2: expected 2 layers of 2 experts, got 2 layers of 2, 1 experts/,
    ],
    ['text.jsonl', '{"layers":[["a"]]}', /line 1.layers: expected lists of expert numbers, got \[\["a"\]\]/],
    ['empty.jsonl', '', /empty.jsonl: line 1: expected .*, got an empty file/],
  ])('is refused where it is wrong: %s', (name, content, message) => {
    const file = written(name, content);
    expect(() => readRouting(file, 1)).toThrow(ModelFormatError);
    expect(() => readRouting(file, 1)).toThrow(message);
  });

  it('is refused where it is missing, or of another model', () => {
    expect(() => readRouting(path.join(folder, 'nothing.json'), 1)).toThrow(
      /nothing.json: expected a file, got nothing there/,
    );
    const point = { ...basePoint('single'), policies: ['tp'], routingFile: written('other.json', good) };
    expect(() => new PointRunner().run(point)).toThrow(
      /other.json: shape: expected 48 layers, top 8 of 128 \(.*\), got 2 layers, top 2 of 4/,
    );
  });
});
