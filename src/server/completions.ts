/** POST /v1/completions: from its body to the work and the bodies of its answers. Called by app.ts. */
import type { GenerateResult, GenerationPart, TokenLogprob } from '../llm.js';
import { answerId, finishReasonOf, nowSeconds, type ServedModel } from './answers.js';
import { invalidRequest } from './api-error.js';
import { parseCompletionBody, promptsOf } from './completion-request.js';
import type { AnswerFormat, Work } from './generate.js';
import { deliveryOf, generateOptions } from './generation-parameters.js';
import { completionLogprobs } from './logprobs.js';
import type { UsageBody } from './usage.js';

/** OpenAI's default for this endpoint. */
const DEFAULT_MAX_TOKENS = 16;

/** Throws ApiError. */
export function completionWork(served: ServedModel, input: unknown): Work {
  const body = parseCompletionBody(input);
  const prompts = promptsOf(body);
  for (const prompt of prompts)
    served.checkPromptLength(typeof prompt === 'string' ? prompt.length : 0, 'prompt');
  const delivery = deliveryOf(body);
  const places = prompts.length * delivery.n;
  served.checkModel(body.model);
  served.checkChoices(places, prompts.length > 1 ? 'prompt' : 'n');
  if (delivery.stream && prompts.length > 1 && body.logprobs) {
    throw invalidRequest('`logprobs` of several prompts cannot be streamed', 'logprobs');
  }
  const maxTokens = body.max_tokens ?? DEFAULT_MAX_TOKENS;
  return {
    delivery,
    places,
    format: new CompletionFormat(served, delivery.includeUsage),
    start: (callbacks) =>
      prompts.flatMap((prompt) =>
        Array.from({ length: delivery.n }, (_, choice) =>
          served.model.generate(prompt, {
            ...generateOptions(body, maxTokens, choice),
            logprobs: body.logprobs ?? undefined,
            ...callbacks,
          }),
        ),
      ),
  };
}

class CompletionFormat implements AnswerFormat {
  readonly #head: object;
  readonly #includeUsage: boolean;
  /** Characters sent so far, by answer. */
  readonly #lengths = new Map<number, number>();

  constructor(served: ServedModel, includeUsage: boolean) {
    this.#includeUsage = includeUsage;
    this.#head = {
      id: answerId('cmpl'),
      object: 'text_completion',
      created: nowSeconds(),
      model: served.name,
      system_fingerprint: served.fingerprint,
    };
  }

  opening(): object[] {
    return [];
  }

  part(index: number, { text, logprobs }: GenerationPart): object[] {
    const offset = this.#lengths.get(index) ?? 0;
    this.#lengths.set(index, offset + text.length);
    return [this.#chunk(choice(index, text, null, logprobs, offset))];
  }

  closing(index: number, result: GenerateResult): object[] {
    return [this.#chunk(choice(index, '', finishReasonOf(result)))];
  }

  usage(usage: UsageBody): object {
    return { ...this.#head, choices: [], usage };
  }

  whole(answers: Parameters<AnswerFormat['whole']>[0], usage: UsageBody): object {
    const choices = answers.map(({ parts, result }, index) => {
      const logprobs = result.logprobs && parts.flatMap((part) => part.logprobs ?? []);
      return choice(index, result.text, finishReasonOf(result), logprobs);
    });
    return { ...this.#head, choices, usage };
  }

  #chunk(made: object): object {
    return { ...this.#head, choices: [made], ...(this.#includeUsage ? { usage: null } : {}) };
  }
}

function choice(
  index: number,
  text: string,
  finishReason: string | null,
  logprobs?: readonly TokenLogprob[],
  offset = 0,
) {
  return {
    index,
    text,
    logprobs: logprobs ? completionLogprobs(logprobs, offset) : null,
    finish_reason: finishReason,
  };
}
