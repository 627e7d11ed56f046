/**
 * The model's own Jinja chat template, rendered by @huggingface/jinja with the variables that transformers gives it.
 * Made by open-model.ts from chat_template.jinja, tokenizer_config.json or GGUF metadata; used by model.chat.
 */
import { Template } from '@huggingface/jinja';
import { ChatTemplateError, describeValue, ModelFormatError } from '../errors.js';
import { describeKind, isJsonObject } from './json-file.js';
import type { SpecialTokenName } from './tokenizer.js';

export type ChatTemplateInput = {
  messages: readonly object[];
  /** Tool definitions in the OpenAI form. */
  tools?: readonly object[] | undefined;
  /** Further variables of the template, such as `enable_thinking`. */
  variables?: Record<string, unknown> | undefined;
  /** Ends with the opening of the assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
};

/** Template texts by name; most models have only `default`, some also `tool_use`. */
export type ChatTemplateTexts = Readonly<Record<string, string>>;

export class ChatTemplate {
  readonly texts: ChatTemplateTexts;
  readonly #specialTokens: Readonly<Partial<Record<SpecialTokenName, string>>>;
  readonly #parsed = new Map<string, Template>();

  constructor(texts: ChatTemplateTexts, specialTokens: Readonly<Partial<Record<SpecialTokenName, string>>>) {
    this.texts = texts;
    this.#specialTokens = specialTokens;
  }

  /** The prompt text of a conversation. Throws ChatTemplateError where the template refuses it. */
  render(input: ChatTemplateInput): string {
    const template = this.#template(
      input.tools !== undefined && 'tool_use' in this.texts ? 'tool_use' : 'default',
    );
    try {
      return template.render({
        tools: null,
        documents: null,
        ...this.#specialTokens,
        ...input.variables,
        messages: input.messages,
        ...(input.tools === undefined ? {} : { tools: input.tools }),
        add_generation_prompt: input.addGenerationPrompt ?? true,
      });
    } catch (cause) {
      throw new ChatTemplateError(`The model's chat template refuses the messages: ${describeValue(cause)}`, {
        cause,
      });
    }
  }

  #template(name: string): Template {
    let template = this.#parsed.get(name);
    if (template !== undefined) return template;
    const text = Object.hasOwn(this.texts, name) ? this.texts[name] : undefined;
    if (text === undefined) {
      const known = Object.keys(this.texts);
      throw new ChatTemplateError(
        known.length === 0
          ? 'The model has no chat template'
          : `The model has no chat template named ${name}`,
        {
          hint:
            known.length === 0 ? 'Use generate with a prompt text instead.' : `It has: ${known.join(', ')}`,
        },
      );
    }
    try {
      template = new Template(text);
    } catch (cause) {
      throw new ChatTemplateError(`The model's chat template does not parse: ${describeValue(cause)}`, {
        cause,
      });
    }
    this.#parsed.set(name, template);
    return template;
  }
}

/** `chat_template` of tokenizer_config.json: one text, or a list of { name, template }. Throws ModelFormatError. */
export function readTemplateTexts(value: unknown, file: string): ChatTemplateTexts {
  if (value === undefined || value === null) return {};
  if (typeof value === 'string') return { default: value };
  const texts: Record<string, string> = {};
  for (const entry of Array.isArray(value) ? value : [value]) {
    if (!isJsonObject(entry) || typeof entry.name !== 'string' || typeof entry.template !== 'string') {
      throw new ModelFormatError({
        file,
        field: 'chat_template',
        expected: 'a string or a list of { name, template }',
        got: describeKind(entry),
      });
    }
    texts[entry.name] = entry.template;
  }
  return texts;
}
