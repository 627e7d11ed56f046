/**
 * Reads the JSON body of a request within its limits: type, size, encoding, depth. Called by app.ts. What it gives is
 * still unchecked data.
 */
import { ApiError, invalidRequest } from './api-error.js';

/** Deeper than any tool's schema; shallow enough for whatever walks a value by recursion. */
const MAX_DEPTH = 64;

/** Throws ApiError (400, 413, 415). */
export async function readJson(request: Request, maxBytes: number): Promise<unknown> {
  const type = request.headers.get('content-type') ?? '';
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new ApiError(415, 'Expected the Content-Type application/json', { code: 'unsupported_media_type' });
  }
  const encoding = request.headers.get('content-encoding') ?? 'identity';
  if (encoding !== 'identity') {
    throw new ApiError(415, `Expected a body without Content-Encoding, got ${encoding}`);
  }
  const bytes = await readBytes(request, maxBytes);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ApiError(400, 'Expected a body of JSON in UTF-8', { code: 'invalid_json', cause });
  }
  if (isDeeper(value, MAX_DEPTH)) throw invalidRequest(`Expected JSON at most ${MAX_DEPTH} levels deep`);
  return value;
}

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  const tooLarge = () =>
    new ApiError(413, `Expected a body of at most ${maxBytes} bytes`, { code: 'body_too_large' });
  if (Number(request.headers.get('content-length') ?? 0) > maxBytes) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  if (request.body === null) return new Uint8Array(0);
  try {
    for await (const piece of request.body as unknown as AsyncIterable<Uint8Array>) {
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
