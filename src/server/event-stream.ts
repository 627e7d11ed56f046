/**
 * Server-sent events of one answer: JSON chunks, comments as heartbeat while there is nothing to say, [DONE] or an
 * error at the end. Chunks are pulled as the client reads, so a slow client holds up its own sequence and no memory.
 * Used by generate.ts.
 */
import { toApiError } from './api-error.js';

export type EventStreamOptions = {
  heartbeatMs: number;
  /** Text of a heartbeat comment; one line. */
  comment: () => string;
  /** The client left before the end. */
  onCancel: () => void;
};

const encoder = new TextEncoder();
const HEARTBEAT = Symbol('heartbeat');

/**
 * Resolves once it is certain that there is a stream: with the first chunk, or the first heartbeat where that takes
 * longer. An error before that rejects, so that it can have a status of its own.
 */
export async function eventStream(
  chunks: AsyncGenerator<object, void>,
  options: EventStreamOptions,
): Promise<ReadableStream<Uint8Array>> {
  let pending: Promise<IteratorResult<object, void>> | undefined;
  const next = async (): Promise<Uint8Array | undefined> => {
    pending ??= chunks.next();
    const winner = await raceHeartbeat(pending, options.heartbeatMs);
    if (winner === HEARTBEAT) return encoder.encode(`: ${options.comment()}\n\n`);
    pending = undefined;
    return winner.done ? undefined : event(JSON.stringify(winner.value));
  };
  let first = await next();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const bytes = first ?? (await next());
          first = undefined;
          controller.enqueue(bytes ?? event('[DONE]'));
          if (bytes === undefined) controller.close();
        } catch (error) {
          controller.enqueue(event(JSON.stringify(toApiError(error).body)));
          controller.close();
        }
      },
      async cancel() {
        options.onCancel();
        await chunks.return();
      },
    },
    { highWaterMark: 0 },
  );
}

function event(data: string): Uint8Array {
  return encoder.encode(`data: ${data}\n\n`);
}

function raceHeartbeat<Value>(value: Promise<Value>, timeMs: number): Promise<Value | typeof HEARTBEAT> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(HEARTBEAT), timeMs);
    value.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
