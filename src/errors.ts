/**
 * Every error class and code of nearmoe. Thrown by all layers; this file imports nothing. The native side sends
 * `code` and `message` in its Status and device/native.ts turns them into these classes.
 * An error says what was wrong, where, what was expected and got, and where possible what mends it (`hint`).
 */

/** All codes that a NearmoeError can carry. */
export const ERROR_CODES = [
  'ERR_OPTION',
  'ERR_MODEL_NOT_FOUND',
  'ERR_MODEL_FORMAT',
  'ERR_MODEL_UNSUPPORTED',
  'ERR_WEIGHT_MISSING',
  'ERR_WEIGHT_SURPLUS',
  'ERR_WEIGHT_VALUE',
  'ERR_TOKENIZER',
  'ERR_PROMPT',
  'ERR_CHAT_TEMPLATE',
  'ERR_MEMORY',
  'ERR_OUTPUT',
  'ERR_DEVICE',
  'ERR_GPU',
  'ERR_ADDON_LOAD',
  'ERR_DISPOSED',
  'ERR_ABORTED',
  'ERR_ENGINE_CRASHED',
  'ERR_INTERNAL',
] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];

export type ErrorDetails = { hint?: string; cause?: unknown };

/** Base of all errors that nearmoe throws on purpose. */
export class NearmoeError extends Error {
  readonly code: ErrorCode;
  /** What the caller can do about it; empty where nothing is known. */
  readonly hint: string;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.hint = details.hint ?? '';
  }
}

/** A value as it appears in messages: short, one line, strings quoted. */
export function describeValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'bigint') return `${value}`;
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : `${value}`;
  if (typeof value === 'function') return 'a function';
  if (value instanceof Error) return value.message;
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    text = undefined;
  }
  text ??= Object.prototype.toString.call(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}

/** An option of the API or the command line is out of its domain. */
export class OptionError extends NearmoeError {
  readonly option: string;
  readonly expected: string;
  readonly got: unknown;

  constructor(option: string, expected: string, got: unknown, details: ErrorDetails = {}) {
    super('ERR_OPTION', `Expected \`${option}\` to be ${expected}, got ${describeValue(got)}`, details);
    this.option = option;
    this.expected = expected;
    this.got = got;
  }
}

export type ModelFormatDetails = ErrorDetails & {
  /** Path of the file that is wrong. */
  file: string;
  /** Place inside the file: config key, tensor name, metadata key. */
  field?: string;
  expected: string;
  got: unknown;
  /** Byte offset in the file. */
  offset?: number;
  code?: ErrorCode;
};

/** A model's file is missing, damaged, contradicts itself or asks for something nearmoe cannot do. */
export class ModelFormatError extends NearmoeError {
  readonly file: string;
  readonly field: string;
  readonly expected: string;
  readonly got: unknown;
  readonly offset: number | undefined;

  constructor(details: ModelFormatDetails) {
    const field = details.field ?? '';
    const place = field === '' ? details.file : `${details.file}: ${field}`;
    const at = details.offset === undefined ? '' : ` (at byte ${details.offset})`;
    const message = `${place}: expected ${details.expected}, got ${describeGot(details.got)}${at}`;
    super(details.code ?? 'ERR_MODEL_FORMAT', message, details);
    this.file = details.file;
    this.field = field;
    this.expected = details.expected;
    this.got = details.got;
    this.offset = details.offset;
  }
}

/** `got` given as a string is a phrase and is not quoted again. */
function describeGot(got: unknown): string {
  if (typeof got !== 'string') return describeValue(got);
  return got.length > 200 ? `${got.slice(0, 197)}...` : got;
}

/** The tokenizer files are unusable, or a text or token id cannot be converted. */
export class TokenizerError extends NearmoeError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('ERR_TOKENIZER', message, details);
  }
}

/** A prompt is empty, too long, or has unknown token ids. */
export class PromptError extends NearmoeError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('ERR_PROMPT', message, details);
  }
}

/** A chat template is missing, does not parse, or refuses the messages. */
export class ChatTemplateError extends NearmoeError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('ERR_CHAT_TEMPLATE', message, details);
  }
}

/** Memory does not suffice; the figures are in the message. */
export class MemoryError extends NearmoeError {
  readonly neededBytes: number;
  readonly availableBytes: number;

  constructor(message: string, neededBytes: number, availableBytes: number, details: ErrorDetails = {}) {
    super('ERR_MEMORY', message, details);
    this.neededBytes = neededBytes;
    this.availableBytes = availableBytes;
  }
}

/** A file that nearmoe was to write could not be written; nothing half-written is left. */
export class OutputError extends NearmoeError {
  readonly file: string;

  constructor(file: string, reason: string, details: ErrorDetails = {}) {
    super('ERR_OUTPUT', `${file} could not be written: ${reason}`, details);
    this.file = file;
  }
}

/** A device (unit, GPU) failed or was asked for something it cannot do. */
export class DeviceError extends NearmoeError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('ERR_DEVICE', message, details);
  }
}

/** The GPU cannot be used or failed; the message names what, and the CUDA call and kernel where one failed. */
export class GpuError extends NearmoeError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('ERR_GPU', message, details);
  }
}

/** The native addon could not be loaded. */
export class AddonLoadError extends NearmoeError {
  readonly packageRoot: string;

  constructor(packageRoot: string, cause?: unknown) {
    const abi = process.versions.modules;
    const reason = cause === undefined ? '' : `: ${describeValue(cause)}`;
    super(
      'ERR_ADDON_LOAD',
      `The native addon of nearmoe did not load for ${process.platform}-${process.arch}, Node ${process.version} ` +
        `(ABI ${abi}). Looked for ${packageRoot}/build/Release/*.node and ` +
        `${packageRoot}/prebuilds/${process.platform}-${process.arch}/*.node${reason}`,
      {
        cause,
        hint: `Run \`npm run build:native\` in ${packageRoot} (needs CMake >= 3.21 and a C++20 compiler).`,
      },
    );
    this.packageRoot = packageRoot;
  }
}

/** A disposed object was used. */
export class DisposedError extends NearmoeError {
  constructor(what = 'The model') {
    super('ERR_DISPOSED', `${what} was disposed and cannot be used any more`);
  }
}

/** Work was cancelled through an AbortSignal; `cause` is the signal's reason. */
export class AbortedError extends NearmoeError {
  constructor(what = 'The operation', cause?: unknown) {
    super('ERR_ABORTED', `${what} was aborted`, { cause });
    // The name that the platform uses, so that callers can test for it as they do with fetch.
    this.name = 'AbortError';
  }
}

/** The engine's worker ended without being asked to. */
export class EngineCrashedError extends NearmoeError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('ERR_ENGINE_CRASHED', message, details);
  }
}

/** Plain data of a NearmoeError, as it crosses a worker's message channel. */
export type SerializedError = {
  name: string;
  code: ErrorCode;
  message: string;
  hint: string;
  stack?: string;
  /** The class's own public fields (file, field, expected, ...), where structured clone takes them. */
  fields: Record<string, string | number | undefined>;
};

/** Turns any thrown value into plain data; errors that are not NearmoeErrors become ERR_INTERNAL. */
export function serializeError(error: unknown): SerializedError {
  if (!(error instanceof NearmoeError)) {
    const stack = error instanceof Error ? error.stack : undefined;
    return {
      name: 'NearmoeError',
      code: 'ERR_INTERNAL',
      message: describeValue(error),
      hint: '',
      stack,
      fields: {},
    };
  }
  const fields: SerializedError['fields'] = {};
  for (const [key, value] of Object.entries(error)) {
    if (key === 'name' || key === 'code' || key === 'hint' || key === 'cause') continue;
    fields[key] = typeof value === 'number' || typeof value === 'string' ? value : describeValue(value);
  }
  return {
    name: error.name,
    code: error.code,
    message: error.message,
    hint: error.hint,
    stack: error.stack,
    fields,
  };
}

const CLASSES: readonly { prototype: NearmoeError; name: string }[] = [
  OptionError,
  ModelFormatError,
  TokenizerError,
  PromptError,
  ChatTemplateError,
  MemoryError,
  OutputError,
  DeviceError,
  GpuError,
  AddonLoadError,
  DisposedError,
  AbortedError,
  EngineCrashedError,
];

/** The inverse of serializeError: an instance of the same class with the same message, code, hint and fields. */
export function deserializeError(data: SerializedError): NearmoeError {
  const error = new NearmoeError(data.code, data.message, { hint: data.hint });
  const name = data.name === 'AbortError' ? 'AbortedError' : data.name;
  const known = CLASSES.find((candidate) => candidate.name === name);
  if (known !== undefined) Object.setPrototypeOf(error, known.prototype);
  Object.assign(error, data.fields);
  error.name = data.name;
  if (data.stack !== undefined) error.stack = data.stack;
  return error;
}
