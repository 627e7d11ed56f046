/** Spans of device time out of the table in which native.ts gets them. */
import { TRACE_COLUMNS } from '../binding.js';
import type { DeviceTraceEvent } from './device.js';

const TRACE_KINDS = ['layers', 'attention', 'experts', 'transfer', 'logits'] as const;

/** `rows` [events][TRACE_COLUMNS]: lane (units first, then GPU, then transfer), kind, layer, start and end in us. */
export function readTraceEvents(rows: Float64Array, units: number): DeviceTraceEvent[] {
  const events: DeviceTraceEvent[] = [];
  for (let at = 0; at < rows.length; at += TRACE_COLUMNS) {
    const [lane = 0, kind = 0, layer = -1, startUs = 0, endUs = 0] = rows.subarray(at, at + TRACE_COLUMNS);
    const laneName = lane < units ? `unit ${lane}` : lane === units ? 'gpu' : 'transfer';
    events.push({ lane: laneName, name: TRACE_KINDS[kind] ?? 'layers', layer, startUs, endUs });
  }
  return events;
}
