/**
 * Which TypeScript tests run and how. `npm test` calls this through scripts/test.mjs after dist/ and the
 * addon are built: worker threads and the command line are tested as built, never from source.
 */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
  },
});
