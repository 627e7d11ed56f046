/**
 * The Chrome trace export: one lane per device in a fixed order, times from 0, no span lost or moved.
 */
import { expect, test } from 'vitest';
import { chromeTrace, type TraceSpan } from '../../../src/trace/chrome.js';

const spans: TraceSpan[] = [
  { lane: 'unit 10', name: 'experts', layer: 3, startUs: 1000.5, endUs: 1010.25 },
  { lane: 'transfer', name: 'transfer', layer: 4, startUs: 1001, endUs: 1009 },
  { lane: 'unit 2', name: 'experts', layer: 3, startUs: 1000.5, endUs: 1008 },
  { lane: 'gpu', name: 'attention', layer: 3, startUs: 998, endUs: 1000.5 },
  { lane: 'engine', name: 'schedule', layer: 3, startUs: 1000.5, endUs: 1000.9 },
  { lane: 'gpu', name: 'logits', layer: -1, startUs: 1011, endUs: 1012 },
];

test('each device is one named lane, in reading order', () => {
  const { traceEvents } = chromeTrace(spans);
  const names = traceEvents.filter((event) => event.name === 'thread_name');
  expect(names.map((event) => [event.tid, event.args.name])).toEqual([
    [1, 'engine'],
    [2, 'gpu'],
    [3, 'transfer'],
    [4, 'unit 2'],
    [5, 'unit 10'],
  ]);
  const order = traceEvents.filter((event) => event.name === 'thread_sort_index');
  expect(order.map((event) => [event.tid, event.args.sort_index])).toEqual(
    [1, 2, 3, 4, 5].map((n) => [n, n]),
  );
});

test('spans keep their lane, length and layer, and time starts at 0', () => {
  const { traceEvents, otherData } = chromeTrace(spans, { policy: 'balanced' });
  const complete = traceEvents.filter((event) => event.ph === 'X');
  expect(complete).toHaveLength(spans.length);
  expect(complete[0]).toEqual({
    ph: 'X',
    name: 'experts L3',
    cat: 'experts',
    pid: 1,
    tid: 5,
    ts: 2.5,
    dur: 9.75,
    args: { layer: 3 },
  });
  expect(complete.find((event) => event.cat === 'logits')).toMatchObject({
    name: 'logits',
    ts: 13,
    args: {},
  });
  expect(Math.min(...complete.map((event) => event.ts))).toBe(0);
  expect(otherData).toEqual({ policy: 'balanced' });
});

test('no span gives a trace that is still valid', () => {
  expect(JSON.parse(JSON.stringify(chromeTrace([])))).toEqual({
    displayTimeUnit: 'ms',
    otherData: {},
    traceEvents: [{ ph: 'M', name: 'process_name', pid: 1, tid: 0, args: { name: 'nearmoe' } }],
  });
});
