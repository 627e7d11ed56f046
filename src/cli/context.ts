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
  /** The same for SIGTERM. */
  onTerminate(handler: () => void): () => void;
  /** Ends the process at once. */
  exit(status: number): void;
};

/** The context of the real process. */
export function processContext(): CliContext {
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    loadModel,
    onInterrupt: (handler) => onSignal('SIGINT', handler),
    onTerminate: (handler) => onSignal('SIGTERM', handler),
    exit: (status) => process.exit(status),
  };
}

function onSignal(signal: 'SIGINT' | 'SIGTERM', handler: () => void): () => void {
  process.on(signal, handler);
  return () => process.off(signal, handler);
}
