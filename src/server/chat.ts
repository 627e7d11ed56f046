/** POST /v1/chat/completions: from its body to the work. Called by app.ts; its answers' bodies are in chat-format.ts. */

import { needsMarks } from '../answer/answer-reader.js';
import type { ServedModel } from './answers.js';
import { ChatFormat } from './chat-format.js';
import { parseChatBody, templateMessages } from './chat-request.js';
import type { Work } from './generate.js';
import { deliveryOf, generateOptions } from './generation-parameters.js';
import { toolUse } from './tool-request.js';

/** Throws ApiError. */
export function chatWork(served: ServedModel, input: unknown): Work {
  const body = parseChatBody(input);
  served.checkModel(body.model);
  const delivery = deliveryOf(body);
  served.checkChoices(delivery.n, 'n');
  const messages = templateMessages(body, served.model.info.toolCalls);
  const characters = messages.reduce((sum, { content }) => sum + content.length, 0);
  served.checkPromptLength(characters, 'messages');
  // An answer may go on to the end of the context, as OpenAI's do.
  const maxTokens = body.max_completion_tokens ?? body.max_tokens ?? served.model.info.maxContext;
  const { info } = served.model;
  const use = toolUse(body, info);
  const styles = {
    toolCalls: info.toolCalls,
    reasoning: body.separate_reasoning === false || use.isHeld ? undefined : info.reasoning,
  };
  return {
    delivery,
    places: delivery.n,
    format: new ChatFormat(served, delivery.includeUsage, use, styles),
    start: (callbacks) =>
      Array.from({ length: delivery.n }, (_, choice) =>
        served.model.chat(messages, {
          ...generateOptions(body, maxTokens, choice),
          logprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
          ...use.options,
          skipSpecialTokens: !needsMarks(styles, use.functions.length > 0),
          variables: body.chat_template_kwargs ?? undefined,
          ...callbacks,
        }),
      ),
  };
}
