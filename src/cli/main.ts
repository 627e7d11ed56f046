/**
 * The command line: declares the commands and their options and hands over to one file per command.
 * Called by infer.js. Computes nothing itself; everything but the result goes to stderr.
 */
import { createRequire } from 'node:module';
import { Command } from 'commander';

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

/** Runs one command line (without node and script name); resolves to the exit status. */
export async function runCli(argv: readonly string[]): Promise<number> {
  const program = new Command('nearmoe')
    .description('Mixture-of-Experts inference on boxes whose GPU memory cannot hold all experts')
    .version(version);
  await program.parseAsync(argv, { from: 'user' });
  return 0;
}
