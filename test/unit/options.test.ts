import { describe, expect, it } from 'vitest';
import { OptionError } from '../../src/errors.js';
import { sizeBytes } from '../../src/options/size-bytes.js';
import {
  type ChatMessage,
  checkChat,
  checkGenerateOptions,
  checkLoadOptions,
  checkPrompt,
  type GenerateOptions,
  type LoadOptions,
  type Prompt,
} from '../../src/options.js';

const load = (options: object) => () => checkLoadOptions({ model: 'm', ...options } as LoadOptions);
const generate = (options: object) => () => checkGenerateOptions(options as GenerateOptions);

describe('load options', () => {
  it('accept what the docstrings say', () => {
    load({
      units: 4,
      threadsPerUnit: 1,
      tpDegree: 2,
      gpu: 'host',
      gpuThreads: 1,
      vram: '512MB',
      transferBandwidthGBs: 25.6,
      policy: 'balanced',
      kvDtype: 'q8_0',
      maxContext: 1,
      pinThreads: false,
      isa: '',
      onProgress: () => undefined,
      signal: new AbortController().signal,
    })();
    load({ units: undefined, vram: 0 })();
  });

  it.each([
    [{ units: 0 }, 'Expected `units` to be an integer >= 1, got 0'],
    [{ units: 1.5 }, 'Expected `units` to be an integer >= 1, got 1.5'],
    [{ units: '2' }, 'Expected `units` to be an integer >= 1, got "2"'],
    [{ maxContext: 0 }, 'Expected `maxContext` to be an integer >= 1, got 0'],
    [
      { gpu: 'vulkan' },
      'Expected `gpu` to be one of "auto", "cuda", "host", "emulated", "off", got "vulkan"',
    ],
    [{ vram: '12 parsecs' }, 'Expected `vram` to be bytes >= 0 or a size such as "512MB", got "12 parsecs"'],
    [{ transferBandwidthGBs: 0 }, 'Expected `transferBandwidthGBs` to be a number > 0, got 0'],
    [{ transferBandwidthGBs: Number.NaN }, 'Expected `transferBandwidthGBs` to be a number > 0, got NaN'],
    [{ model: '' }, 'Expected `model` to be a non-empty string, got ""'],
    [{ model: undefined }, 'Expected `model` to be a non-empty string, got nothing'],
    [{ signal: {} }, 'Expected `signal` to be an AbortSignal, got {}'],
    [{ pinThreads: 1 }, 'Expected `pinThreads` to be true or false, got 1'],
  ])('refuse %j', (options, message) => {
    expect(load(options)).toThrow(OptionError);
    expect(load(options)).toThrow(message);
  });

  it('refuse a name that is none, and say which there are', () => {
    expect(load({ unit: 2 })).toThrow('Expected `unit` to be one of model, quantize, ');
  });
});

describe('generate options', () => {
  it('accept what the docstrings say', () => {
    generate({
      maxTokens: 1,
      temperature: 0,
      topK: 0,
      topP: 1,
      minP: 0,
      seed: 2 ** 40,
      stop: ['a'],
      logprobs: 0,
    })();
    generate({ stop: 'x', onProgress: () => undefined })();
  });

  it.each([
    [{ maxTokens: 0 }, '`maxTokens` to be an integer >= 1, got 0'],
    [{ temperature: -1 }, '`temperature` to be a number >= 0, got -1'],
    [{ temperature: Infinity }, '`temperature` to be a number >= 0, got Infinity'],
    [{ topP: 0 }, '`topP` to be a number > 0 and <= 1, got 0'],
    [{ minP: 1.1 }, '`minP` to be a number from 0 to 1, got 1.1'],
    [{ seed: -1 }, '`seed` to be an integer >= 0, got -1'],
    [{ stop: [''] }, '`stop` to be a non-empty string or a list of them, got [""]'],
    [{ logprobs: 21 }, '`logprobs` to be an integer from 0 to 20, got 21'],
    [{ repetitionPenalty: 0 }, '`repetitionPenalty` to be a number > 0, got 0'],
  ])('refuse %j', (options, message) => {
    expect(generate(options)).toThrow(message);
  });
});

describe('prompts', () => {
  it('are texts or ids', () => {
    checkPrompt('');
    checkPrompt({ inputIds: [0, 5] });
    expect(() => checkPrompt({ inputIds: [1, -2] })).toThrow('`inputIds[1]` to be an integer >= 0, got -2');
    expect(() => checkPrompt({ inputIds: [1.5] })).toThrow('`inputIds[0]`');
    expect(() => checkPrompt(null as unknown as Prompt)).toThrow('a string or { inputIds: number[] }');
    expect(() => checkPrompt(7 as unknown as Prompt)).toThrow(OptionError);
  });

  it('or messages', () => {
    checkChat([{ role: 'user', content: 'Hi' }], { tools: [{}], variables: { enable_thinking: false } });
    expect(() => checkChat([], {})).toThrow('a non-empty list of { role, content }');
    expect(() => checkChat([{ role: 'user' } as ChatMessage], {})).toThrow('`messages[0]`');
    expect(() => checkChat([{ role: 'user', content: '' }], { tools: [1 as unknown as object] })).toThrow(
      '`tools`',
    );
  });
});

describe('sizeBytes', () => {
  it.each([
    [1024, 1024],
    ['1024', 1024],
    ['512MB', 512e6],
    ['1.5 GiB', 1.5 * 2 ** 30],
    ['2gb', 2e9],
    ['', undefined],
    ['MB', undefined],
    ['-1', undefined],
    [-1, undefined],
    [Number.NaN, undefined],
    [null, undefined],
  ])('%j is %s', (value, bytes) => {
    expect(sizeBytes(value)).toBe(bytes);
  });
});
