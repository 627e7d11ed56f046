/** POST /v1/chat/completions: from its body to the work and the bodies of its answers. Called by app.ts. */
import type { GenerateResult, GenerationPart } from '../llm.js';
import { answerId, finishReasonOf, nowSeconds, type ServedModel } from './answers.js';
import { parseChatBody, templateMessages } from './chat-request.js';
import type { AnswerFormat, WholeAnswer, Work } from './generate.js';
import { deliveryOf, generateOptions } from './generation-parameters.js';
import { chatLogprobs } from './logprobs.js';
import type { UsageBody } from './usage.js';

/** Throws ApiError. */
export function chatWork(served: ServedModel, input: unknown): Work {
  const body = parseChatBody(input);
  served.checkModel(body.model);
  const delivery = deliveryOf(body);
  served.checkChoices(delivery.n, 'n');
  const messages = templateMessages(body);
  const characters = messages.reduce((sum, { content }) => sum + content.length, 0);
  served.checkPromptLength(characters, 'messages');
  // An answer may go on to the end of the context, as OpenAI's do.
  const maxTokens = body.max_completion_tokens ?? body.max_tokens ?? served.model.info.maxContext;
  const format = new ChatFormat(served, delivery.includeUsage);
  return {
    delivery,
    places: delivery.n,
    format,
    start: (callbacks) =>
      Array.from({ length: delivery.n }, (_, choice) =>
        served.model.chat(messages, {
          ...generateOptions(body, maxTokens, choice),
          logprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
          variables: body.chat_template_kwargs ?? undefined,
          ...callbacks,
        }),
      ),
  };
}

class ChatFormat implements AnswerFormat {
  readonly #head: { id: string; created: number; model: string; system_fingerprint: string };
  readonly #includeUsage: boolean;

  constructor(served: ServedModel, includeUsage: boolean) {
    this.#includeUsage = includeUsage;
    this.#head = {
      id: answerId('chatcmpl'),
      created: nowSeconds(),
      model: served.name,
      system_fingerprint: served.fingerprint,
    };
  }

  opening(index: number): object[] {
    return [this.#chunk({ index, delta: { role: 'assistant', content: '' }, finish_reason: null })];
  }

  part(index: number, { text, logprobs }: GenerationPart): object[] {
    const choice = { index, delta: { content: text }, finish_reason: null };
    return [this.#chunk(logprobs ? { ...choice, logprobs: chatLogprobs(logprobs) } : choice)];
  }

  closing(index: number, result: GenerateResult): object[] {
    return [this.#chunk({ index, delta: {}, finish_reason: finishReasonOf(result) })];
  }

  usage(usage: UsageBody): object {
    return { ...this.#head, object: 'chat.completion.chunk', choices: [], usage };
  }

  whole(answers: readonly WholeAnswer[], usage: UsageBody): object {
    const choices = answers.map(({ parts, result }, index) => ({
      index,
      message: { role: 'assistant', content: result.text, refusal: null },
      logprobs: result.logprobs ? chatLogprobs(parts.flatMap((part) => part.logprobs ?? [])) : null,
      finish_reason: finishReasonOf(result),
    }));
    return { ...this.#head, object: 'chat.completion', choices, usage };
  }

  #chunk(choice: object): object {
    const usage = this.#includeUsage ? { usage: null } : {};
    return { ...this.#head, object: 'chat.completion.chunk', choices: [choice], ...usage };
  }
}
