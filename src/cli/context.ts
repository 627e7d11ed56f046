/**
 * What the commands need of the process: streams, interrupts and the engine's door. Built once by main.ts for the
 * real process; tests pass their own. No command touches `process` otherwise.
 */
import { loadModel } from '../llm.js';

/** The part of a writable stream that the commands use. */
export type TextOutput = { write(text: string): unknown; isTTY?: boolean; columns?: number };

export type CliContext = {
  stdout: TextOutput;
  stderr: TextOutput;
  stdin: NodeJS.ReadableStream & { isTTY?: boolean };
  env: Readonly<Record<string, string | undefined>>;
  loadModel: typeof loadModel;
  /** Calls `handler` at each Ctrl-C until the returned function is called. */
  onInterrupt(handler: () => void): () => void;
};

/** The context of the real process. */
export function processContext(): CliContext {
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    loadModel,
    onInterrupt(handler) {
      process.on('SIGINT', handler);
      return () => process.off('SIGINT', handler);
    },
  };
}
