/**
 * Opening of whole folders: what comes back, chat templates against transformers' rendering, generation config, and
 * the errors for what is missing or damaged.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ChatTemplateError, ModelFormatError } from '../../../src/errors.js';
import { ChatTemplate, readTemplateTexts } from '../../../src/model/chat-template.js';
import { openModel } from '../../../src/model/open-model.js';
import {
  type Json,
  modelFolder,
  neededTensors,
  newFolder,
  TINY_CONFIGS,
  thrownBy,
} from './tiny-checkpoint.js';

const config = TINY_CONFIGS.qwen3_moe as Json;

function folder(files: Record<string, string> = {}): string {
  return modelFolder({ config, tensors: neededTensors(config), files });
}

describe('a model folder', () => {
  it('gives spec, weights, tokenizer, template and end-of-text ids', () => {
    const path = folder({ 'generation_config.json': JSON.stringify({ eos_token_id: [7, 3] }) });
    const model = openModel(path);
    expect(model).toMatchObject({ path, source: 'hub' });
    expect(model.spec.architecture).toBe('qwen3_moe');
    expect(model.tokenizer.encode('hello')).toEqual([259]);
    expect(model.generation).toEqual({ eosTokenIds: [3, 7, 290], sampling: { temperature: 0 } });
    for (const { tensor } of model.weights) expect(model.tensors.has(tensor)).toBe(true);
    expect(model.tensors.files).toEqual([join(path, 'model.safetensors')]);
  });

  it('takes sampling defaults only where sampling is on', () => {
    const settings = { temperature: 0.6, top_k: 20, top_p: 0.95, repetition_penalty: 1.05 };
    const sampled = JSON.stringify({ do_sample: true, ...settings });
    expect(openModel(folder({ 'generation_config.json': sampled })).generation.sampling).toEqual({
      temperature: 0.6,
      topK: 20,
      topP: 0.95,
      minP: undefined,
      repetitionPenalty: 1.05,
    });
    const greedy = JSON.stringify(settings);
    expect(openModel(folder({ 'generation_config.json': greedy })).generation.sampling).toEqual({
      temperature: 0,
      repetitionPenalty: 1.05,
    });
    expect(openModel(folder()).generation).toEqual({ eosTokenIds: [290], sampling: {} });
  });

  it('takes end-of-text ids from config.json where nothing else has them', () => {
    const path = modelFolder({ config: { ...config, eos_token_id: 5 }, tensors: neededTensors(config) });
    expect(openModel(path).generation.eosTokenIds).toEqual([5, 290]);
  });

  it.each<[string, Record<string, string>, RegExp]>([
    [
      'no config',
      { 'config.json': '' },
      /config\.json: expected the model's configuration, got no such file/,
    ],
    ['a config that is not JSON', { 'config.json': '{"a":' }, /config\.json: expected JSON/],
    ['a config that is a list', { 'config.json': '[1]' }, /expected a JSON object, got a list/],
    ['no weights', { 'model.safetensors': '' }, /expected model\.safetensors or/],
    [
      'a text for an id',
      { 'generation_config.json': '{"eos_token_id":"x"}' },
      /eos_token_id: expected a token id/,
    ],
    [
      'a temperature below 0',
      { 'generation_config.json': '{"do_sample":true,"temperature":-1}' },
      /temperature/,
    ],
    [
      'a template that is a number',
      { 'tokenizer_config.json': '{"chat_template":3}' },
      /chat_template: expected a/,
    ],
  ])('with %s is refused', (_why, files, message) => {
    const error = thrownBy(() => openModel(folder(files)));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
  });

  it('that does not exist is told so', () => {
    const path = join(newFolder(), 'nowhere');
    expect(thrownBy(() => openModel(path))).toMatchObject({ code: 'ERR_MODEL_NOT_FOUND', file: path });
  });
});

type ChatCase = {
  name: string;
  template: string;
  messages: object[];
  tools: object[] | null;
  addGenerationPrompt: boolean;
  specialTokens: Record<string, string>;
  text: string;
};
const { cases } = JSON.parse(readFileSync('test/fixtures/tokenizers/chat.json', 'utf8')) as {
  cases: ChatCase[];
};

describe('chat templates', () => {
  it.each(cases)('$name (generation prompt: $addGenerationPrompt) renders like transformers', (expected) => {
    const template = new ChatTemplate({ default: expected.template }, expected.specialTokens);
    const { messages, tools, addGenerationPrompt, text } = expected;
    expect(template.render({ messages, tools: tools ?? undefined, addGenerationPrompt })).toBe(text);
  });

  it('come from chat_template.jinja before tokenizer_config.json', () => {
    const inConfig = {
      'tokenizer_config.json': JSON.stringify({ chat_template: 'B{{ messages[0].content }}' }),
    };
    const messages = [{ role: 'user', content: 'x' }];
    expect(openModel(folder(inConfig)).chatTemplate.render({ messages })).toBe('Bx');
    const both = { ...inConfig, 'chat_template.jinja': 'A{{ enable_thinking }}' };
    expect(
      openModel(folder(both)).chatTemplate.render({ messages, variables: { enable_thinking: 'no' } }),
    ).toBe('Ano');
  });

  it('of several names are chosen by whether tools are given', () => {
    const texts = readTemplateTexts(
      [
        { name: 'default', template: 'plain' },
        { name: 'tool_use', template: 'tools' },
      ],
      'tokenizer_config.json',
    );
    const template = new ChatTemplate(texts, {});
    expect(template.render({ messages: [] })).toBe('plain');
    expect(template.render({ messages: [], tools: [{}] })).toBe('tools');
  });

  it.each<[string, Record<string, string>, RegExp]>([
    ['none', {}, /has no chat template/],
    ['one that does not parse', { default: '{% for %}' }, /does not parse/],
    [
      'one that refuses',
      { default: '{{ raise_exception("no system role") }}' },
      /refuses the messages: no system role/,
    ],
  ])('with %s are a ChatTemplateError', (_why, texts, message) => {
    const error = thrownBy(() => new ChatTemplate(texts, {}).render({ messages: [] }));
    expect(error).toBeInstanceOf(ChatTemplateError);
    expect(error.message).toMatch(message);
  });
});
