/**
 * A conversation with its history: each answer is added to it, so that the next turn goes on from there, and the prefix
 * cache makes it pay for its new tokens only. Made by Model.createChatSession; lives on the caller's thread.
 */
import { answerMessage } from '../answer/chat-answer.js';
import { OptionError } from '../errors.js';
import type { ToolCallStyle } from '../model/tool-call-style.js';
import type { ChatMessage, ChatOptions } from '../options.js';
import type { Generation } from './generation.js';

export type ChatSessionOptions = ChatOptions & {
  /** What the model is told before the conversation. */
  system?: string;
  /** A conversation to go on with. */
  messages?: readonly ChatMessage[];
};

type Chat = (messages: readonly ChatMessage[], options: ChatOptions) => Generation;

export class ChatSession implements Disposable {
  #chat: Chat;
  #style: ToolCallStyle | undefined;
  #options: ChatOptions;
  #messages: ChatMessage[];
  #running: Generation | undefined;

  /** Use `model.createChatSession`. */
  constructor(
    chat: Chat,
    style: ToolCallStyle | undefined,
    { system, messages = [], ...options }: ChatSessionOptions,
  ) {
    this.#style = style;
    this.#chat = chat;
    this.#options = options;
    const first = system === undefined ? [] : [{ role: 'system', content: system } as const];
    this.#messages = [...first, ...messages.map((message) => ({ ...message }))];
  }

  /** The conversation so far, as a copy. */
  get messages(): ChatMessage[] {
    return this.#messages.map((message) => ({ ...message }));
  }

  /**
   * Asks the next question; a text is the user's, tool results come as messages. When its result is there, both are
   * part of the history; an answer that was cancelled or failed leaves the history as it was. Options add to the
   * session's. Throws OptionError while another answer is under way.
   */
  send(question: string | ChatMessage | readonly ChatMessage[], options: ChatOptions = {}): Generation {
    if (this.#running !== undefined) {
      const hint = 'Await the result of the last one, or cancel it and await that.';
      throw new OptionError('question', 'sent when the last answer is there', 'one under way', { hint });
    }
    const asked = typeof question === 'string' ? [{ role: 'user', content: question }] : [question].flat();
    const conversation = [...this.#messages, ...asked] as ChatMessage[];
    const generation = this.#chat(conversation, { ...this.#options, ...options });
    this.#running = generation;
    generation.result.then(
      ({ text, answer = { content: text, reasoning: '', toolCalls: [] }, finishReason }) => {
        this.#running = undefined;
        if (finishReason !== 'cancelled')
          this.#messages = [...conversation, answerMessage(answer, this.#style)];
      },
      () => {
        this.#running = undefined;
      },
    );
    return generation;
  }

  /** Ends what is under way. The session can be used further. */
  [Symbol.dispose](): void {
    this.#running?.cancel();
  }
}
