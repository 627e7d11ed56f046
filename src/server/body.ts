/**
 * Reads the JSON body of a request within its limits: type, size, encoding, depth. Called by app.ts. What it gives is
 * still unchecked data.
 */
import type { Readable } from 'node:stream';
import { ApiError, invalidRequest } from './api-error.js';

/** Deeper than any tool's schema; shallow enough for whatever walks a value by recursion. */
const MAX_DEPTH = 64;

/**
 * `incoming`: the same request as node:http has it, where it comes from there. Its bytes are then read without a web
 * stream and without the web Request around it, whose finalizers keep what it refers to until a full collection.
 * Throws ApiError (400, 413, 415).
 */
export async function readJson(
  request: Request,
  maxBytes: number,
  incoming: Readable | undefined,
): Promise<unknown> {
  const type = request.headers.get('content-type') ?? '';
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new ApiError(415, 'Expected the Content-Type application/json', { code: 'unsupported_media_type' });
  }
  const encoding = request.headers.get('content-encoding') ?? 'identity';
  if (encoding !== 'identity') {
    throw new ApiError(415, `Expected a body without Content-Encoding, got ${encoding}`);
  }
  const bytes = await readBytes(request.headers, maxBytes, () => bodyOf(request, incoming));
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ApiError(400, 'Expected a body of JSON in UTF-8', { code: 'invalid_json', cause });
  }
  if (isDeeper(value, MAX_DEPTH)) throw invalidRequest(`Expected JSON at most ${MAX_DEPTH} levels deep`);
  return value;
}

/** A body that something before us read is left to the web Request, which may have kept it. */
function bodyOf(request: Request, incoming: Readable | undefined): AsyncIterable<Uint8Array> | null {
  if (incoming === undefined || incoming.readableDidRead)
    return request.body as AsyncIterable<Uint8Array> | null;
  // Destroying it would take the socket along on which a refusal has to go out.
  return incoming.iterator({ destroyOnReturn: false });
}

async function readBytes(
  headers: Headers,
  maxBytes: number,
  open: () => AsyncIterable<Uint8Array> | null,
): Promise<Uint8Array> {
  const tooLarge = () =>
    new ApiError(413, `Expected a body of at most ${maxBytes} bytes`, { code: 'body_too_large' });
  if (Number(headers.get('content-length') ?? 0) > maxBytes) throw tooLarge();
  const body = open();
  if (body === null) return new Uint8Array(0);
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  try {
    for await (const piece of body) {
      sizeBytes += piece.byteLength;
      if (sizeBytes > maxBytes) throw tooLarge();
      pieces.push(piece);
    }
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    throw new ApiError(400, 'The body ended too early', { code: 'incomplete_body', cause });
  }
  return Buffer.concat(pieces);
}

/** Without recursion, since it is what guards recursion. */
function isDeeper(value: unknown, levels: number): boolean {
  let level = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > levels) return true;
    level = level.flatMap((entry) =>
      typeof entry === 'object' && entry !== null
        ? Object.values(entry).filter((child) => typeof child === 'object' && child !== null)
        : [],
    );
  }
  return false;
}
