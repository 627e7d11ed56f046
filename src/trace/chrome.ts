/**
 * A request's timeline in Chrome's trace event format, one lane per device, for chrome://tracing or Perfetto.
 * Called by cli/ for --trace and by the simulator's reports. Knows nothing of devices beyond their lanes' names.
 */

/** One span of a lane, microseconds of one clock. */
export type TraceSpan = {
  /** "engine", "gpu", "transfer", "unit 0", ... */
  lane: string;
  name: string;
  /** Model layer; negative where the span belongs to none. */
  layer: number;
  startUs: number;
  endUs: number;
};

type ChromeEvent =
  | { ph: 'M'; name: string; pid: number; tid: number; args: Record<string, string | number> }
  | {
      ph: 'X';
      name: string;
      cat: string;
      pid: number;
      tid: number;
      ts: number;
      dur: number;
      args: Record<string, number>;
    };

/** The JSON object form of the format. */
export type ChromeTrace = {
  displayTimeUnit: 'ms';
  otherData: Record<string, string | number>;
  traceEvents: ChromeEvent[];
};

const PROCESS = 1;
/** Lanes from top to bottom; units follow by number, unknown lanes come last. */
const LANE_ORDER = ['engine', 'gpu', 'transfer'];

/**
 * Builds the trace: time starts at 0 with the earliest span, lanes are sorted engine, gpu, transfer, unit 0, 1, ...
 * `about` ends up in the viewer's metadata (model, policy, ...).
 */
export function chromeTrace(
  spans: readonly TraceSpan[],
  about: Record<string, string | number> = {},
): ChromeTrace {
  const lanes = [...new Set(spans.map((span) => span.lane))].sort(compareLanes);
  const laneIds = new Map(lanes.map((lane, index) => [lane, index + 1]));
  const originUs = spans.reduce((least, span) => Math.min(least, span.startUs), Infinity);
  const traceEvents: ChromeEvent[] = [metadata('process_name', 0, { name: 'nearmoe' })];
  for (const [lane, tid] of laneIds) {
    traceEvents.push(metadata('thread_name', tid, { name: lane }));
    traceEvents.push(metadata('thread_sort_index', tid, { sort_index: tid }));
  }
  for (const span of spans) {
    traceEvents.push({
      ph: 'X',
      name: span.layer < 0 ? span.name : `${span.name} L${span.layer}`,
      cat: span.name,
      pid: PROCESS,
      tid: laneIds.get(span.lane) ?? 0,
      ts: roundUs(span.startUs - originUs),
      dur: roundUs(span.endUs - span.startUs),
      args: span.layer < 0 ? {} : { layer: span.layer },
    });
  }
  return { displayTimeUnit: 'ms', otherData: about, traceEvents };
}

function metadata(name: string, tid: number, args: Record<string, string | number>): ChromeEvent {
  return { ph: 'M', name, pid: PROCESS, tid, args };
}

/** Nanoseconds are kept, float noise is not. */
function roundUs(timeUs: number): number {
  return Math.round(timeUs * 1000) / 1000;
}

function compareLanes(left: string, right: string): number {
  const rank = (lane: string) => {
    const known = LANE_ORDER.indexOf(lane);
    if (known >= 0) return known;
    return lane.startsWith('unit ') ? LANE_ORDER.length : LANE_ORDER.length + 1;
  };
  return rank(left) - rank(right) || left.localeCompare(right, 'en', { numeric: true });
}
