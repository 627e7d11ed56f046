/**
 * Runs many points side by side in worker threads and gives their cells in the points' order. Called by `sim`. With
 * one thread everything runs here. Results do not depend on the number of threads.
 */
import { Worker } from 'node:worker_threads';
import { deserializeError, type SerializedError } from '../errors.js';
import type { Cell, Point } from './point.js';
import { PointRunner } from './run-point.js';

export type PointAnswer = { index: number; cells: Cell[] } | { index: number; error: SerializedError };

export type RunPointsOptions = {
  /** Worker threads; 1 runs here. */
  threads: number;
  onProgress?: (done: number, total: number) => void;
};

/** Throws the first error of a point. */
export async function runPoints(
  points: readonly Point[],
  { threads, onProgress }: RunPointsOptions,
): Promise<Cell[]> {
  const results: Cell[][] = points.map(() => []);
  let done = 0;
  const take = (index: number, cells: Cell[]) => {
    results[index] = cells;
    onProgress?.(++done, points.length);
  };
  if (threads <= 1 || points.length === 1) {
    const runner = new PointRunner();
    points.forEach((point, index) => {
      take(index, runner.run(point));
    });
    return results.flat();
  }
  const queue = new PointQueue(points);
  const workers = Array.from({ length: Math.min(threads, points.length) }, () => startWorker());
  try {
    await Promise.all(
      workers.map(async (worker) => {
        for (let index = queue.take(); index !== undefined; index = queue.take(points[index]?.model)) {
          const answer = await ask(worker, { index, point: points[index] as Point });
          if ('error' in answer) throw deserializeError(answer.error);
          take(index, answer.cells);
        }
      }),
    );
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  return results.flat();
}

/** Hands points out so that a worker stays with a model: it keeps routing and runs that boxes of one model share. */
class PointQueue {
  private readonly waiting = new Map<string, number[]>();

  constructor(points: readonly Point[]) {
    points.forEach(({ model }, index) => {
      this.waiting.set(model, [...(this.waiting.get(model) ?? []), index]);
    });
  }

  /** Index of a point of `model`, else of the model with the most points left; undefined where none is left. */
  take(model?: string): number | undefined {
    const lists = [...this.waiting.values()].sort((left, right) => right.length - left.length);
    const own = model === undefined ? undefined : this.waiting.get(model);
    return own?.shift() ?? lists[0]?.shift();
  }
}

function startWorker(): Worker {
  return new Worker(new URL('./point-worker.js', import.meta.url));
}

function ask(worker: Worker, question: { index: number; point: Point }): Promise<PointAnswer> {
  return new Promise((resolve, reject) => {
    const onMessage = (answer: PointAnswer) => {
      worker.off('error', reject);
      resolve(answer);
    };
    worker.once('message', onMessage);
    worker.once('error', reject);
    worker.postMessage(question);
  });
}
