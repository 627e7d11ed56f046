/**
 * What answers of both endpoints share: the model that is served and its limits, ids, times, reasons for the end. Used
 * by chat.ts, completions.ts and app.ts.
 */
import { randomBytes } from 'node:crypto';
import type { GenerateResult, Model } from '../llm.js';
import { ApiError, invalidRequest } from './api-error.js';
import type { ServerSettings } from './server-options.js';

/** What the server needs of a model. */
export type ServableModel = Pick<Model, 'info' | 'generate' | 'chat' | 'stats'>;

/** Characters that a token has at most: the longest of usual vocabularies have 128 (runs of spaces or signs). */
const LONGEST_TOKEN = 128;

export class ServedModel {
  readonly model: ServableModel;
  readonly name: string;
  readonly createdSeconds = nowSeconds();
  readonly fingerprint: string;
  readonly #maxChoices: number;

  constructor(model: ServableModel, { modelName, maxChoices }: ServerSettings) {
    this.model = model;
    this.name = modelName;
    this.#maxChoices = maxChoices;
    const { architecture, isa, kvDtype } = model.info;
    this.fingerprint = `${architecture}-${isa}-${kvDtype}`;
  }

  get listing() {
    const { maxContext } = this.model.info;
    return {
      id: this.name,
      object: 'model',
      created: this.createdSeconds,
      owned_by: 'nearmoe',
      max_model_len: maxContext,
    };
  }

  /** Throws 404. */
  checkModel(name: string): void {
    if (name === this.name) return;
    throw new ApiError(404, `The model "${name}" does not exist; this server offers "${this.name}"`, {
      param: 'model',
      code: 'model_not_found',
    });
  }

  /** Throws 400 for more answers than one request may ask for. */
  checkChoices(count: number, param: string): void {
    if (count <= this.#maxChoices) return;
    throw invalidRequest(`Expected at most ${this.#maxChoices} answers of one request, got ${count}`, param);
  }

  /** Refuses a text that is too long whatever its tokens are, before anybody cuts it into tokens. Throws 400. */
  checkPromptLength(characters: number, param: string): void {
    const { maxContext } = this.model.info;
    if (characters <= maxContext * LONGEST_TOKEN) return;
    throw new ApiError(
      400,
      `Expected a prompt of at most ${maxContext} tokens, got ${characters} characters`,
      { param, code: 'context_length_exceeded' },
    );
  }
}

export function answerId(prefix: string): string {
  return `${prefix}-${randomBytes(12).toString('hex')}`;
}

export function nowSeconds(): number {
  return Math.floor(Date.now() / 1000);
}

/** OpenAI's name for why an answer ended. */
export function finishReasonOf({ finishReason }: GenerateResult): 'stop' | 'length' {
  return finishReason === 'length' || finishReason === 'context' ? 'length' : 'stop';
}
