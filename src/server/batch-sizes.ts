/**
 * The histogram of batch sizes for Prometheus, from the engine's own counts: a scrape costs the same however many steps
 * there were since the last one. Made by metrics.ts.
 */
import { Histogram, type Registry } from 'prom-client';

const NAME = 'nearmoe_batch_size';
const HELP = 'Sequences of a step';
const BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128];

export class BatchSizes extends Histogram {
  /** Steps so far, by their number of sequences. */
  steps: readonly number[] = [];

  constructor(registry: Registry) {
    super({ name: NAME, help: HELP, buckets: BUCKETS, registers: [registry] });
  }

  /** What prom-client makes its texts of. */
  async getForPromString() {
    const total = (of: (size: number) => number) =>
      this.steps.reduce((sum, count, size) => sum + count * of(size), 0);
    const value = (suffix: string, number: number, labels: { le?: string | number } = {}) => ({
      metricName: `${NAME}_${suffix}`,
      labels,
      value: number,
    });
    const buckets = BUCKETS.map((most) =>
      value(
        'bucket',
        total((size) => (size <= most ? 1 : 0)),
        { le: most },
      ),
    );
    const count = total(() => 1);
    const values = [
      ...buckets,
      value('bucket', count, { le: '+Inf' }),
      value(
        'sum',
        total((size) => size),
      ),
      value('count', count),
    ];
    return { name: NAME, help: HELP, type: 'histogram', aggregator: 'sum', values };
  }
}
