/**
 * The files a request can leave behind: its timeline, its routing, its logits. Called by run.ts and chat.ts after the
 * request; the writers check first that the folder is there, so that nobody waits for a story to lose it.
 */
import { accessSync, constants, writeFileSync } from 'node:fs';
import path from 'node:path';
import { NearmoeError, OptionError } from '../errors.js';
import type { GenerateResult, PlanReport } from '../llm.js';
import { chromeTrace } from '../trace/chrome.js';

export type OutputFiles = { trace?: string; recordRouting?: string; logitsOut?: string };

/** Throws OptionError where a named file cannot be written. Called before the model is loaded. */
export function checkOutputFiles(files: OutputFiles): void {
  const flags = {
    '--trace': files.trace,
    '--record-routing': files.recordRouting,
    '--logits-out': files.logitsOut,
  };
  for (const [flag, file] of Object.entries(flags)) {
    if (file === undefined) continue;
    try {
      accessSync(path.dirname(path.resolve(file)), constants.W_OK);
    } catch (cause) {
      throw new OptionError(flag, 'a file in a folder that exists and can be written', file, { cause });
    }
  }
}

/** Writes what was asked for; returns one line for each file written. */
export function writeOutputFiles(files: OutputFiles, result: GenerateResult, info: PlanReport): string[] {
  const written: string[] = [];
  if (files.trace !== undefined) {
    const about = { architecture: info.architecture, policy: info.policy, prefetch: info.prefetch };
    const trace = chromeTrace(result.trace ?? [], about);
    write(files.trace, JSON.stringify(trace));
    written.push(`timeline of ${result.trace?.length ?? 0} spans in ${files.trace}`);
  }
  if (files.recordRouting !== undefined && result.routing !== undefined) {
    write(files.recordRouting, routingJson(result.routing, info));
    written.push(`routing of ${result.routing.tokens} tokens in ${files.recordRouting}`);
  }
  if (files.logitsOut !== undefined && result.logits !== undefined) {
    write(files.logitsOut, littleEndian(result.logits.values));
    written.push(`${result.logits.rows} rows of ${result.logits.vocabSize} logits in ${files.logitsOut}`);
  }
  return written;
}

/** The routing as JSON; `ids` is base64 of uint16 little-endian [token][layer][k], ascending by id inside a token. */
function routingJson(routing: NonNullable<GenerateResult['routing']>, info: PlanReport): string {
  const { ids, ...shape } = routing;
  const bytes = Buffer.alloc(ids.length * 2);
  ids.forEach((id, index) => {
    bytes.writeUInt16LE(id, index * 2);
  });
  const head = { format: 'nearmoe-routing', version: 1, architecture: info.architecture, ...shape };
  return `${JSON.stringify({ ...head, ids: bytes.toString('base64') })}\n`;
}

function littleEndian(values: Float32Array): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => {
    bytes.writeFloatLE(value, index * 4);
  });
  return bytes;
}

function write(file: string, content: string | Buffer): void {
  try {
    writeFileSync(file, content);
  } catch (cause) {
    throw new NearmoeError('ERR_OPTION', `${file} could not be written: ${String(cause)}`, { cause });
  }
}
