#!/usr/bin/env node
/**
 * The door of the command line: `node infer.js "Once upon a time"`. Starts dist/cli/main.js, and says which
 * command builds it where it is missing. Knows no option itself.
 */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('./dist/cli/main.js', import.meta.url);
if (existsSync(fileURLToPath(main))) {
  const { runCli } = await import(main.href);
  // A reader that has seen enough, such as `head`, closes the pipe: that is no failure.
  process.stdout.on('error', (error) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  process.exitCode = await runCli(process.argv.slice(2));
} else {
  console.error(
    `nearmoe is not built: ${fileURLToPath(main)} is missing. Run \`npm ci\` in this folder first.`,
  );
  process.exitCode = 1;
}
