/**
 * `nearmoe/opentelemetry`: a span for each request, named and described by OpenTelemetry's conventions for generative AI
 * (`gen_ai.*`), out of what engines tell on node:diagnostics_channel. No prompt and no answer is recorded.
 * @opentelemetry/api is an optional peer; without a registered tracer provider its spans go nowhere.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import path from 'node:path';
import { type Attributes, type Span, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api';
import type { RequestEvent } from '../engine/diagnostics.js';
import { NearmoeError } from '../errors.js';

/**
 * Records every request from now on, of all models of this process, as a span below the caller's active one.
 * Returns a function that ends the recording.
 */
export function recordSpans(tracer: Tracer = trace.getTracer('nearmoe')): () => void {
  const spans = new WeakMap<object, Span>();
  const onStart = (message: unknown) => {
    const event = message as RequestEvent;
    const name = `${event.operation} ${modelName(event)}`;
    spans.set(
      event.request,
      tracer.startSpan(name, { kind: SpanKind.CLIENT, attributes: requestAttributes(event) }),
    );
  };
  const onEnd = (message: unknown) => {
    const { request, result } = message as RequestEvent;
    const span = spans.get(request);
    if (span === undefined || result === undefined) return;
    span.setAttributes({
      'gen_ai.response.finish_reasons': [result.finishReason],
      'gen_ai.usage.input_tokens': result.usage.promptTokens,
      'gen_ai.usage.output_tokens': result.usage.completionTokens,
      'gen_ai.usage.cache_read.input_tokens': result.usage.cachedPromptTokens,
      'gen_ai.request.seed': result.seed,
    });
    span.end();
  };
  const onError = (message: unknown) => {
    const { request, error } = message as RequestEvent;
    const span = spans.get(request);
    const type = error instanceof NearmoeError ? error.code : 'ERR_INTERNAL';
    span?.setAttribute('error.type', type);
    span?.setStatus({ code: SpanStatusCode.ERROR, message: error instanceof Error ? error.message : type });
    span?.end();
  };
  const listeners = { start: onStart, end: onEnd, error: onError };
  for (const [name, listener] of Object.entries(listeners)) subscribe(`nearmoe.request.${name}`, listener);
  return () => {
    for (const [name, listener] of Object.entries(listeners))
      unsubscribe(`nearmoe.request.${name}`, listener);
  };
}

function requestAttributes(event: RequestEvent): Attributes {
  const { options, operation } = event;
  const { stop, responseFormat } = options;
  return {
    'gen_ai.operation.name': operation,
    'gen_ai.provider.name': 'nearmoe',
    'gen_ai.request.model': modelName(event),
    'gen_ai.request.max_tokens': options.maxTokens,
    'gen_ai.request.temperature': options.temperature,
    'gen_ai.request.top_k': options.topK,
    'gen_ai.request.top_p': options.topP,
    'gen_ai.request.frequency_penalty': options.frequencyPenalty,
    'gen_ai.request.presence_penalty': options.presencePenalty,
    'gen_ai.request.stop_sequences': typeof stop === 'string' ? [stop] : stop && [...stop],
    'gen_ai.output.type': responseFormat?.type.startsWith('json') ? 'json' : 'text',
  };
}

/** A model is a path here; its last part names it without telling where it lies. */
function modelName({ model }: RequestEvent): string {
  return path.basename(model);
}
