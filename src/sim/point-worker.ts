/**
 * The worker thread behind run-points.ts: runs the points it is sent, one at a time, and keeps what they share.
 */
import { parentPort } from 'node:worker_threads';
import { serializeError } from '../errors.js';
import type { Point } from './point.js';
import { PointRunner } from './run-point.js';
import type { PointAnswer } from './run-points.js';

const runner = new PointRunner();

parentPort?.on('message', ({ index, point }: { index: number; point: Point }) => {
  parentPort?.postMessage(answer(index, point));
});

function answer(index: number, point: Point): PointAnswer {
  try {
    return { index, cells: runner.run(point) };
  } catch (error) {
    return { index, error: serializeError(error) };
  }
}
