/**
 * The chat on the left: turns, streaming, stopping, what an answer cost. Called by main.js; talks to the same API as any
 * other client.
 */
import { streamChat } from './api.js';

/** @typedef {{ role: 'user' | 'assistant', content: string }} Message */

export class Chat {
  /** @param {(error: unknown) => void} onError told of errors that concern the whole page */
  constructor(onError) {
    this.onError = onError;
    /** @type {Message[]} */
    this.messages = [];
    this.model = '';
    /** @type {AbortController | undefined} */
    this.running = undefined;
    this.log = byId('log', HTMLElement);
    this.hint = byId('hint', HTMLElement);
    this.message = byId('message', HTMLTextAreaElement);
    this.temperature = byId('temperature', HTMLInputElement);
    this.maxTokens = byId('max-tokens', HTMLInputElement);
    this.send = byId('send', HTMLButtonElement);
    this.stop = byId('stop', HTMLButtonElement);
    const form = byId('composer', HTMLFormElement);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.submit();
    });
    this.message.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.stop.addEventListener('click', () => this.running?.abort());
    byId('clear', HTMLButtonElement).addEventListener('click', () => this.clear());
  }

  clear() {
    this.running?.abort();
    this.messages = [];
    this.log.replaceChildren(this.hint);
    this.message.focus();
  }

  async submit() {
    const content = this.message.value.trim();
    if (content === '' || this.running || this.model === '') return;
    this.message.value = '';
    this.hint.remove();
    this.turn('user', content);
    const messages = [...this.messages, { role: /** @type {const} */ ('user'), content }];
    this.messages = messages;
    const answer = this.turn('assistant', '');
    const controller = new AbortController();
    this.setRunning(controller);
    const text = document.createTextNode('');
    answer.append(text);
    try {
      const usage = await this.stream(messages, text, controller.signal);
      answer.append(costs(usage));
      this.log.scrollTop = this.log.scrollHeight;
    } catch (error) {
      if (!controller.signal.aborted) {
        answer.classList.add('error');
        text.data += `${text.data === '' ? '' : '\n'}${error instanceof Error ? error.message : error}`;
        this.onError(error);
      } else answer.append(small('stopped'));
    }
    // A new chat may have begun meanwhile.
    if (this.messages === messages && text.data !== '' && !answer.classList.contains('error'))
      this.messages = [...messages, { role: 'assistant', content: text.data }];
    this.setRunning(undefined);
  }

  /**
   * @param {Message[]} messages @param {Text} text grows as the answer comes @param {AbortSignal} signal
   * @returns {Promise<any>} the usage
   */
  async stream(messages, text, signal) {
    const { value } = this.temperature;
    const body = {
      model: this.model,
      messages,
      max_tokens: Number(this.maxTokens.value),
      ...(value === '' ? {} : { temperature: Number(value) }),
    };
    let usage;
    for await (const chunk of streamChat(body, signal)) {
      const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
      const { content = '', reasoning_content: reasoning = '' } = chunk.choices[0]?.delta ?? {};
      if (reasoning) reasoningBefore(text).data += reasoning;
      text.data += content;
      usage = chunk.usage ?? usage;
      if (atEnd) this.log.scrollTop = this.log.scrollHeight;
    }
    return usage;
  }

  /** @param {AbortController | undefined} running */
  setRunning(running) {
    const focused = document.activeElement === this.send || document.activeElement === this.stop;
    this.running = running;
    this.send.hidden = running !== undefined;
    this.stop.hidden = running === undefined;
    // The button that had the focus is gone; its place keeps it.
    if (focused) (running ? this.stop : this.send).focus();
  }

  /** @param {'user' | 'assistant'} role @param {string} content */
  turn(role, content) {
    const turn = document.createElement('div');
    turn.className = `turn ${role}`;
    const speaker = document.createElement('span');
    speaker.className = 'unseen';
    speaker.textContent = role === 'user' ? 'You: ' : 'Model: ';
    turn.append(speaker, content);
    this.log.append(turn);
    this.log.scrollTop = this.log.scrollHeight;
    return turn;
  }
}

/** The text of the model's reasoning above its answer, which can be folded; made when the first of it comes. @param {Text} answer */
function reasoningBefore(answer) {
  const { previousSibling: before } = answer;
  if (before instanceof HTMLDetailsElement && before.lastChild instanceof Text) return before.lastChild;
  const made = document.createElement('details');
  made.open = true;
  const title = document.createElement('summary');
  title.textContent = 'Reasoning';
  const text = document.createTextNode('');
  made.append(title, text);
  answer.before(made);
  return text;
}

/** @param {any} usage */
function costs(usage) {
  if (!usage) return small('');
  const { timing } = usage;
  const cached = usage.prompt_tokens_details.cached_tokens;
  const parts = [
    `${usage.completion_tokens} tokens`,
    `${timing.decode_tokens_per_second.toFixed(0)} tok/s`,
    `first after ${timing.time_to_first_token_ms.toFixed(0)} ms`,
    `prompt ${usage.prompt_tokens}${cached > 0 ? `, ${cached} from the cache` : ''}`,
  ];
  return small(parts.join(' · '));
}

/** @param {string} text */
function small(text) {
  const made = document.createElement('small');
  made.textContent = text;
  return made;
}

/**
 * @template {HTMLElement} Kind
 * @param {string} id @param {new () => Kind} kind
 * @returns {Kind}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return found;
}
