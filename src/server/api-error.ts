/**
 * Errors as OpenAI's API tells them: a status, a type, a code, the parameter that is wrong. Thrown by every part of the
 * server; app.ts turns them into responses, event-stream.ts into the last event of a stream. Engine errors are
 * translated here and nowhere else.
 */
import { AbortedError, NearmoeError, OptionError } from '../errors.js';

export type ApiErrorBody = {
  error: { message: string; type: string; param: string | null; code: string | null };
};

type ApiErrorDetails = {
  param?: string;
  code?: string;
  /** Seconds after which trying again makes sense. */
  retryAfterSeconds?: number;
  cause?: unknown;
};

export class ApiError extends Error {
  readonly status: number;
  readonly param: string | null;
  readonly code: string | null;
  readonly retryAfterSeconds: number | undefined;

  constructor(status: number, message: string, details: ApiErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = 'ApiError';
    this.status = status;
    this.param = details.param ?? null;
    this.code = details.code ?? null;
    this.retryAfterSeconds = details.retryAfterSeconds;
  }

  get body(): ApiErrorBody {
    const { message, param, code } = this;
    return { error: { message, type: typeOf(this.status), param, code } };
  }
}

export function invalidRequest(message: string, param?: string, code?: string): ApiError {
  return new ApiError(400, message, { param, code });
}

/** What cannot be served now and may be later. */
export function unavailable(message: string, code: string, retryAfterSeconds = 1): ApiError {
  return new ApiError(503, message, { code, retryAfterSeconds });
}

/** Any thrown value as an ApiError. A value that nobody throws on purpose becomes a 500 without its text. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  // What aborted the request says why: a time limit, a shutdown, a reader that left.
  if (error instanceof AbortedError && error.cause instanceof ApiError) return error.cause;
  if (error instanceof OptionError) {
    const param = error.option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    return new ApiError(400, error.message, { param, cause: error });
  }
  if (error instanceof NearmoeError) return fromEngine(error);
  return new ApiError(500, 'The server had an error of its own', { code: 'internal_error', cause: error });
}

function fromEngine(error: NearmoeError): ApiError {
  const message = error.hint === '' ? error.message : `${error.message}. ${error.hint}`;
  switch (error.code) {
    case 'ERR_PROMPT': {
      const tooLong = error.message.includes('at most');
      return new ApiError(400, error.message, {
        code: tooLong ? 'context_length_exceeded' : undefined,
        cause: error,
      });
    }
    case 'ERR_CHAT_TEMPLATE':
    case 'ERR_TOKENIZER':
      return new ApiError(400, message, { param: 'messages', cause: error });
    case 'ERR_DISPOSED':
    case 'ERR_ENGINE_CRASHED':
      return new ApiError(503, message, { code: 'engine_unavailable', retryAfterSeconds: 5, cause: error });
    default:
      return new ApiError(500, message, { code: 'internal_error', cause: error });
  }
}

function typeOf(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}
