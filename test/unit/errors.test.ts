/** Error classes: messages, codes, and the way through a worker's message channel. */
import { describe, expect, it } from 'vitest';
import {
  AbortedError,
  AddonLoadError,
  deserializeError,
  ERROR_CODES,
  MemoryError,
  ModelFormatError,
  NearmoeError,
  OptionError,
  serializeError,
} from '../../src/errors.js';

describe('messages', () => {
  it('tell place, expectation and finding', () => {
    expect(new OptionError('units', 'an integer >= 1', 0).message).toBe(
      'Expected `units` to be an integer >= 1, got 0',
    );
    const error = new ModelFormatError({
      file: 'a.gguf',
      field: 'x',
      expected: 'b',
      got: 'c',
      offset: 12,
      hint: 'd',
    });
    expect(error.message).toBe('a.gguf: x: expected b, got c (at byte 12)');
    expect(error).toMatchObject({ name: 'ModelFormatError', code: 'ERR_MODEL_FORMAT', hint: 'd' });
  });

  it('of a failed addon load say what was looked for and which command mends it', () => {
    const error = new AddonLoadError('/app/node_modules/nearmoe', new Error('No native build was found'));
    expect(error.message).toContain('/app/node_modules/nearmoe/prebuilds/');
    expect(error.message).toContain('No native build was found');
    expect(error.hint).toContain('npm run build:native');
  });

  it('stay short for long values', () => {
    expect(new OptionError('stop', 'a string', 'x'.repeat(5000)).message.length).toBeLessThan(300);
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    expect(new OptionError('stop', 'a string', circular).message).toContain('[object Object]');
  });
});

describe('through a message channel', () => {
  it('class, code, message, hint and fields survive', () => {
    const abort = new AbortedError('The generation', new Error('user left'));
    expect(abort).toMatchObject({ name: 'AbortError', code: 'ERR_ABORTED', cause: { message: 'user left' } });
    for (const error of [
      new ModelFormatError({ file: 'a', field: 'b', expected: 'c', got: { d: 1 }, hint: 'e' }),
      new MemoryError('too large', 10, 5),
      new OptionError('units', 'an integer', 'x'),
      abort,
    ]) {
      const back = deserializeError(structuredClone(serializeError(error)));
      expect(back).toBeInstanceOf(error.constructor);
      expect(back).toBeInstanceOf(NearmoeError);
      const { name, code, message, hint } = error;
      expect(back).toMatchObject({ name, code, message, hint });
      expect(ERROR_CODES).toContain(back.code);
    }
    const memory = deserializeError(serializeError(new MemoryError('too large', 10, 5)));
    expect(memory).toMatchObject({ neededBytes: 10, availableBytes: 5 });
  });

  it('foreign errors become ERR_INTERNAL and keep their message', () => {
    const back = deserializeError(serializeError(new TypeError('x is not a function')));
    expect(back).toMatchObject({ code: 'ERR_INTERNAL', message: 'x is not a function' });
    expect(deserializeError(serializeError('text')).message).toBe('"text"');
  });
});
