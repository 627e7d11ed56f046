/**
 * What answers are made of, and what takes them apart as their text comes. Implemented in answer-reader.ts and
 * harmony.ts, used by chat-format.ts.
 */
import type { ToolCall } from './tool-calls.js';

/** What became certain, in this order. */
export type Found = { reasoning: string; text: string; calls: ToolCall[] };

/** Takes parts of a text; what it gives is all of the text but for marks and the space around them. */
export interface AnswerReader {
  push(part: string): Found;
  /** What was held back when the answer ended. */
  end(): Found;
}
