/** Answers held to a form: every text that the masks allow fulfils it, judged by JSON.parse, Ajv and RegExp. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isResponseFormat, type ResponseFormat } from '../../../src/grammar/response-format.js';
import {
  admits,
  allowedIds,
  bytesOf,
  EOS,
  randomText,
  specialId,
  toyConstraints,
  VOCABULARY_SIZE,
} from './toy-vocabulary.js';

const constraints = toyConstraints();
const ajv = new Ajv2020({
  strict: false,
  formats: { date: /^\d{4}-\d\d-\d\d$/, email: /^[^@]+@[^@]+$/, uuid: true },
});

const seeds = Array.from({ length: 60 }, (_, index) => index);

function expectValid(schema: object): string[] {
  const validate = ajv.compile(schema);
  return seeds.map((seed) => {
    const text = randomText(constraints, { type: 'json_schema', schema }, seed, '"}]x1');
    const value: unknown = JSON.parse(text);
    expect(validate(value), `${text} ${JSON.stringify(validate.errors)}`).toBe(true);
    return text;
  });
}

const person = {
  type: 'object',
  properties: {
    name: { type: 'string', minLength: 2, maxLength: 40 },
    age: { type: 'integer', minimum: 0, maximum: 130 },
    email: { type: 'string', format: 'email' },
    tags: { type: 'array', items: { enum: ['a', 'b', 'c"d'] }, minItems: 1, maxItems: 3 },
    home: { anyOf: [{ type: 'null' }, { $ref: '#/$defs/place' }] },
  },
  required: ['name', 'tags'],
  additionalProperties: false,
  $defs: { place: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } },
};

describe('JSON schemas', () => {
  it.each<[string, object]>([
    ['an object with optional properties', person],
    ['nothing said', {}],
    ['any object', { type: 'object' }],
    [
      'properties required but not described',
      { type: 'object', required: ['x', 'y'], properties: { x: { type: 'null' } } },
    ],
    [
      'names beside the described ones',
      {
        type: 'object',
        properties: { a: { type: 'integer' }, ab: { type: 'integer' } },
        additionalProperties: { type: 'boolean' },
      },
    ],
    [
      'a list of lists',
      { type: 'array', items: { type: 'array', items: { type: 'number' }, maxItems: 3 }, minItems: 2 },
    ],
    [
      'a tuple',
      { type: 'array', prefixItems: [{ type: 'string' }, { type: 'boolean' }], items: false, minItems: 1 },
    ],
    [
      'a tuple that goes on',
      { type: 'array', prefixItems: [{ const: 1 }], items: { const: 2 }, minItems: 3, maxItems: 5 },
    ],
    ['two types', { type: ['integer', 'null', 'string'], minimum: 5, maxLength: 3 }],
    ['a date', { type: 'string', format: 'date' }],
    ['a uuid', { type: 'string', format: 'uuid' }],
    ['a pattern', { type: 'string', pattern: '^[A-Z][a-z"\\\\\\n]{1,4}$' }],
    ['a pattern anywhere', { type: 'string', pattern: 'x\\d' }],
    ['constants', { anyOf: [{ const: { a: [1, 'ä'] } }, { enum: [1, 'x', null] }] }],
    ['constants of a type', { type: 'string', enum: [1, 'x', null, 'y'] }],
    ['numbers from 0 to 1', { type: 'number', minimum: 0, maximum: 1 }],
    ['numbers above 0', { type: 'number', exclusiveMinimum: 0 }],
    ['numbers below 3', { type: 'number', exclusiveMaximum: 3, minimum: -2.5 }],
    ['negative numbers', { type: 'number', exclusiveMaximum: 0 }],
    ['safe integers', { type: 'integer', minimum: -9007199254740991, maximum: 9007199254740991 }],
    [
      'one of two objects',
      {
        oneOf: [
          {
            type: 'object',
            properties: { kind: { const: 'a' }, x: { type: 'number' } },
            required: ['kind', 'x'],
          },
          { type: 'object', properties: { kind: { const: 'b' } }, required: ['kind'] },
          { type: 'string' },
        ],
      },
    ],
    [
      'a tree',
      {
        $defs: {
          node: {
            type: 'object',
            properties: { v: { type: 'integer' }, c: { type: 'array', items: { $ref: '#/$defs/node' } } },
            required: ['v', 'c'],
          },
        },
        $ref: '#/$defs/node',
      },
    ],
    [
      'a list by references',
      {
        type: 'object',
        properties: { v: { const: 1 }, next: { anyOf: [{ $ref: '#' }, { type: 'null' }] } },
        required: ['v', 'next'],
      },
    ],
  ])('hold for every text: %s', (_, schema) => {
    const texts = expectValid(schema);
    // One text alone would mean that there was nothing to choose.
    if (!('const' in schema)) expect(new Set(texts).size).toBeGreaterThan(1);
  });

  it('accept what a person or another program would write', () => {
    const format: ResponseFormat = { type: 'json_schema', schema: person };
    for (const value of [
      { name: 'Ann "x"', tags: ['a'] },
      { name: 'Zoë 漢😀', age: 0, email: 'a.b@c.de', tags: ['c"d', 'b'], home: { city: '\u0001\\' } },
      { name: 'no', age: 130, tags: ['a'], home: null },
    ]) {
      for (const indent of [undefined, 2])
        expect(admits(constraints, format, JSON.stringify(value, null, indent))).toBe(true);
    }
    for (const value of [
      { name: 'n', tags: ['a'] },
      { name: 'Ann' },
      { name: 'Ann', age: 131, tags: ['a'] },
      { tags: ['a'], name: 'Ann' },
    ])
      expect(admits(constraints, format, JSON.stringify(value))).toBe(false);
  });

  it('integers lie between their bounds, all of them', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -1200, max: 1200 }),
        fc.nat(1500),
        fc.boolean(),
        fc.boolean(),
        (least, span, openLow, openHigh) => {
          const most = least + span + 2;
          const schema = {
            type: 'integer',
            [openLow ? 'exclusiveMinimum' : 'minimum']: least,
            [openHigh ? 'exclusiveMaximum' : 'maximum']: most,
          };
          const format: ResponseFormat = { type: 'json_schema', schema };
          const isIn = (value: number) =>
            (openLow ? value > least : value >= least) && (openHigh ? value < most : value <= most);
          for (const value of [least - 1, least, least + 1, most - 1, most, most + 1, 0, 10, -10, 999, 1000])
            expect(admits(constraints, format, `${value}`), `${value} in ${JSON.stringify(schema)}`).toBe(
              isIn(value),
            );
        },
      ),
      { numRuns: 60 },
    );
  });

  it('number bounds hold for any decimals', () => {
    const bound = fc.integer({ min: -40, max: 40 }).map((value) => value / 4);
    fc.assert(
      fc.property(
        bound,
        fc.integer({ min: 4, max: 40 }),
        fc.boolean(),
        fc.boolean(),
        fc.nat(1000),
        (least, span, openLow, openHigh, seed) => {
          const schema = {
            type: 'number',
            [openLow ? 'exclusiveMinimum' : 'minimum']: least,
            [openHigh ? 'exclusiveMaximum' : 'maximum']: least + span / 2,
          };
          const value = Number(randomText(constraints, { type: 'json_schema', schema }, seed));
          expect(ajv.validate(schema, value), `${value} in ${JSON.stringify(schema)}`).toBe(true);
        },
      ),
      { numRuns: 200 },
    );
  });

  it.each<[string, unknown, RegExp]>([
    ['an unknown type', { type: 'text' }, /schema\.type.*one of object, array/],
    [
      'a keyword that is not held to',
      { type: 'array', uniqueItems: true },
      /schema\.uniqueItems.*supported keyword/,
    ],
    ['a reference to nothing', { $ref: '#/$defs/x' }, /\$ref.*inside of the schema/],
    ['a reference to elsewhere', { $ref: 'https://example.com/s' }, /\$ref.*inside of the schema/],
    ['a reference to itself', { $ref: '#' }, /lead back to themselves/],
    [
      'references in a circle',
      {
        $defs: { a: { anyOf: [{ $ref: '#/$defs/b' }, { type: 'null' }] }, b: { $ref: '#/$defs/a' } },
        $ref: '#/$defs/a',
      },
      /lead back/,
    ],
    [
      'a value without end',
      { type: 'object', properties: { x: { $ref: '#' } }, required: ['x'] },
      /at most 64 deep/,
    ],
    ['what nothing fulfils', false, /some value fulfils/],
    ['an empty choice', { enum: [] }, /non-empty list/],
    ['constants of no type', { type: 'string', enum: [1, 2] }, /fulfils all of its keywords/],
    ['bounds in the wrong order', { type: 'integer', minimum: 2, maximum: 1 }, /integer between them/],
    ['lengths in the wrong order', { type: 'string', minLength: 2, maxLength: 1 }, /at most maxLength/],
    ['too long a list', { type: 'array', minItems: 1e9 }, /0 to 10000/],
    [
      'overlapping branches',
      { oneOf: [{ type: 'number' }, { type: 'integer' }] },
      /schemas that differ in type/,
    ],
    ['a bad pattern', { type: 'string', pattern: '(a' }, /pattern.*closing \)/],
    [
      'keywords beside a reference',
      { $ref: '#/$defs/x', type: 'string', $defs: { x: {} } },
      /no other keyword beside it/,
    ],
  ])('are refused with the place where they are wrong: %s', (_, schema, message) => {
    const create = () => constraints.create({ type: 'json_schema', schema: schema as object }, true);
    expect(create).toThrow(message);
    expect(create).toThrow(expect.objectContaining({ code: 'ERR_OPTION' }));
  });

  it('are refused where they nest too deep or grow too large', () => {
    let deep: object = { type: 'string' };
    for (let level = 0; level < 100; level++) deep = { type: 'array', items: deep };
    expect(() => constraints.create({ type: 'json_schema', schema: deep }, true)).toThrow(
      /nested at most 64 deep/,
    );
    const word = { type: 'array', items: { type: 'string', maxLength: 9000 }, maxItems: 10 };
    const large = {
      type: 'object',
      properties: Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`p${i}`, word])),
    };
    expect(() => constraints.create({ type: 'json_schema', schema: large }, true)).toThrow(/200000 states/);
  });

  it('texts nest no deeper than they can be closed', () => {
    const constraint = constraints.create({ type: 'json_object' }, true);
    const open = '{"a":'.repeat(200);
    let depth = 0;
    for (const byte of new TextEncoder().encode(open)) {
      if (!allowedIds(constraint?.mask() ?? new Uint32Array(0)).includes(1 + byte)) break;
      constraint?.accept(1 + byte);
      if (byte === 0x7b) depth++;
    }
    expect(depth).toBeGreaterThan(20);
    expect(depth).toBeLessThan(64);
    // Wherever it stopped, something goes on, and never into a dead end.
    for (let steps = 0; steps < 10_000 && !constraint?.isOver; steps++) {
      const ids = allowedIds(constraint?.mask() ?? new Uint32Array(0));
      expect(ids.length).toBeGreaterThan(0);
      const closing = ids.find((id) => '}]"0'.includes(String.fromCharCode(bytesOf(id)[0] ?? 0)));
      constraint?.accept(closing ?? ids[0] ?? 0);
    }
    expect(constraint?.isOver).toBe(true);
  });
});

describe('regular expressions', () => {
  it.each([
    '[a-c]{2,4}',
    '(?:ab|a)*b',
    '\\d{3}-\\d{4}',
    '[^\\s"@]+@(?<host>[a-z]+\\.)+com',
    '.{0,30}',
    'ä?[漢-漧]+|😀{2}',
    '\\u0041\\x42\\u{1F600}',
    '^a+?$',
    'x{120,130}',
  ])('hold for every text: %s', (pattern) => {
    const whole = new RegExp(`^(?:${pattern})$`, 'u');
    for (const seed of seeds) {
      const text = randomText(constraints, { type: 'regex', pattern }, seed, '@.com');
      expect(text, pattern).toMatch(whole);
    }
  });

  it('allow exactly the matching texts', () => {
    const patterns = ['(a|b)*c', 'a{2,3}(bc)?', '[^a]b|ab+', '(a?b?){2}c'];
    fc.assert(
      fc.property(
        fc.constantFrom(...patterns),
        fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 7 }),
        (pattern, letters) => {
          const text = letters.join('');
          expect(admits(constraints, { type: 'regex', pattern }, text)).toBe(
            new RegExp(`^(?:${pattern})$`, 'u').test(text),
          );
        },
      ),
      { numRuns: 400 },
    );
  });

  it.each([
    '(?=a)b',
    '(?<!a)b',
    '(a)\\1',
    '\\bword',
    'a{3,2}',
    '(a',
    'a)',
    '[b-a]',
    '[a',
    '*a',
    'a{,3}',
    '\\p{L}',
    'a$b',
    '^a|b$',
    '\\',
  ])('are refused where no grammar says the same: %s', (pattern) => {
    expect(() => constraints.create({ type: 'regex', pattern }, true)).toThrow(
      expect.objectContaining({
        code: 'ERR_OPTION',
        message: expect.stringContaining('responseFormat.pattern'),
      }),
    );
  });
});

describe('masks', () => {
  /** By trying every token from the text on, without tree, caches or rules. */
  const slowMask = (format: ResponseFormat, text: string) =>
    Array.from({ length: VOCABULARY_SIZE }, (_, id) => id).filter((id) => {
      const fresh = toyConstraints().create(format, true);
      for (const byte of new TextEncoder().encode(text)) fresh?.accept(1 + byte);
      if (id === EOS) return fresh?.isComplete;
      if (bytesOf(id).length === 0) return false;
      try {
        fresh?.accept(id);
        return true;
      } catch (error) {
        if (error instanceof RangeError) return false;
        throw error;
      }
    });

  it.each<[ResponseFormat, string[]]>([
    [
      { type: 'json_schema', schema: person },
      [
        '',
        '{"name":"A',
        `{"name":"${'A'.repeat(36)}`,
        '{"name":"Ann", "tags": ["a"',
        '{"name":"Ann","age":1',
      ],
    ],
    [{ type: 'json_object' }, ['{', '{"', '{"a\\', '{"a":[1', '{"a":{"b":"']],
    [{ type: 'regex', pattern: '[a-z]{3,90}\\.com' }, ['', 'abcd', 'a'.repeat(85), 'a'.repeat(90)]],
  ])('are what trying every token gives: %j', (format, texts) => {
    for (const text of texts) {
      const constraint = constraints.create(format, true);
      for (const byte of new TextEncoder().encode(text)) constraint?.accept(1 + byte);
      expect(allowedIds(constraint?.mask() ?? new Uint32Array(0)), text).toEqual(slowMask(format, text));
    }
  });

  it('of places that differ only in how far a count is from its end are one, near its end they are not', () => {
    const title = { type: 'string', minLength: 20, maxLength: 60 };
    const format: ResponseFormat = {
      type: 'json_schema',
      // Other properties may follow, so that the string stands in a rule that calls others.
      schema: { type: 'object', properties: { title }, required: ['title'] },
    };
    const maskAfter = (length: number) => {
      const text = `{"title":"${'A'.repeat(length)}`;
      const constraint = constraints.create(format, true);
      for (const byte of new TextEncoder().encode(text)) constraint?.accept(1 + byte);
      const mask = constraint?.mask() ?? new Uint32Array(0);
      expect(allowedIds(mask), `${length}`).toEqual(slowMask(format, text));
      return mask;
    };
    expect(maskAfter(25)).toBe(maskAfter(40));
    for (const length of [0, 15, 19, 20, 57, 58, 59, 60]) maskAfter(length);
  });

  it('say so where the vocabulary cannot go on', async () => {
    const { Constraints } = await import('../../../src/grammar/constraint.js');
    const few = new Constraints({
      vocabSize: 2,
      eosIds: [0],
      bytesOf: (id) => Uint8Array.from(id === 1 ? [0x61] : []),
      specialTexts: new Map(),
      droppedSpaces: 0,
    });
    const constraint = few.create({ type: 'regex', pattern: 'ab' }, true);
    constraint?.accept(1);
    expect(() => constraint?.mask()).toThrow(/no token that goes on/);
  });

  it('let the space pass that decoding drops at the start of an answer', () => {
    const spaced = toyConstraints(1);
    const format: ResponseFormat = { type: 'regex', pattern: 'a' };
    const space = 1 + 0x20;
    expect(allowedIds(spaced.create(format, false)?.mask() ?? new Uint32Array(0))).toContain(space);
    expect(allowedIds(spaced.create(format, true)?.mask() ?? new Uint32Array(0))).not.toContain(space);
    expect(() => toyConstraints(undefined).create(format, true)).not.toThrow();
  });

  it('free text has none', () => {
    expect(constraints.create({ type: 'text' }, true)).toBeUndefined();
  });
});

describe('forms of forms', () => {
  const object = { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'], $defs: {} };
  const either: ResponseFormat = {
    type: 'choice',
    options: [
      {
        type: 'sequence',
        parts: [
          { type: 'literal', text: 'call ' },
          { type: 'json_schema', schema: { ...object, $defs: { x: true } } },
          { type: 'literal', text: '.' },
        ],
      },
      { type: 'regex', pattern: '(no|never)!' },
      { type: 'literal', text: '' },
    ],
  };

  it('are one behind the other, or one of several', () => {
    for (const text of ['call {"a": 1}.', 'no!', 'never!', ''])
      expect(admits(constraints, either, text)).toBe(true);
    for (const text of ['call {"a": 1}', '{"a": 1}.', 'no', 'call no!'])
      expect(admits(constraints, either, text)).toBe(false);
  });

  it('keep references of schemas apart', () => {
    const list = (item: object): ResponseFormat & { type: 'json_schema' } => ({
      type: 'json_schema',
      schema: { type: 'array', items: { $ref: '#/$defs/item' }, $defs: { item } },
    });
    const both: ResponseFormat = {
      type: 'sequence',
      parts: [list({ type: 'integer' }), list({ type: 'boolean' })],
    };
    expect(admits(constraints, both, '[1, 2][true]')).toBe(true);
    expect(admits(constraints, both, '[1][2]')).toBe(false);
  });

  it('write special tokens where a literal names them, and nowhere else', () => {
    const specials = ['<|call|>', '<|call|>name'];
    const special = toyConstraints(0, specials);
    const format: ResponseFormat = {
      type: 'sequence',
      parts: [
        { type: 'literal', text: 'a<|call|>name' },
        { type: 'json_schema', schema: { type: 'string' } },
        { type: 'literal', text: '<|call|>' },
      ],
    };
    for (const seed of seeds)
      expect(randomText(special, format, seed, '"', { specials })).toMatch(
        /^a<\|call\|>name"[\s\S]*"<\|call\|>$/,
      );
    const constraint = special.create(format, true);
    const allowed = () => allowedIds(constraint?.mask() ?? new Uint32Array(0));
    constraint?.accept(1 + 0x61);
    expect(allowed()).toEqual([specialId(1)]);
    constraint?.accept(specialId(1));
    constraint?.accept(1 + 0x22);
    expect(allowed()).not.toContain(specialId(0));
    // A byte that stands for special tokens is none of a text.
    expect(allowed()).not.toContain(1 + 0xff);
    constraint?.accept(1 + 0x22);
    expect(allowed()).toEqual([specialId(0)]);
  });

  it('are checked in their outline', () => {
    expect(isResponseFormat(either)).toBe(true);
    const wrong = [
      { type: 'literal', text: 'a' },
      { type: 'choice', options: [] },
      { type: 'sequence', parts: [{ type: 'text' }] },
      { type: 'sequence', parts: [{ type: 'literal' }] },
      { type: 'choice', options: {} },
    ];
    for (const format of wrong) expect(isResponseFormat(format)).toBe(false);
    let deep: object = { type: 'literal', text: 'a' };
    for (let depth = 0; depth < 100; depth++) deep = { type: 'sequence', parts: [deep] };
    expect(isResponseFormat(deep)).toBe(false);
  });
});
