/**
 * The wire forms of a step and of a plan: flat typed arrays that cross to native in one call each. native.ts encodes;
 * native/runtime/step.cc and compute_device_step.cc decode and check. Decoders here serve the round-trip tests.
 */
import { PLAN_COLUMNS } from '../binding.js';
import type { LayerAssignment, StepBatch } from './device.js';

/** sequences, tokens */
const STEP_HEAD = 2;
/** tokens, first position, logit rows, cancel slot, KV blocks, one more than the state slots read and written */
const SEQUENCE_COLUMNS = 7;
const PLAN_HEAD = 2;

/** Grows on demand and is used again, so that a decode step allocates nothing. */
export class StepEncoder {
  #step = new Int32Array(256);
  #ropes = new Float32Array(256);

  /**
   * step: [sequences, tokens], per sequence SEQUENCE_COLUMNS numbers, then all KV block ids, then all token ids.
   * ropes: per sequence and rope set the attention factor, then the inverse frequencies.
   */
  encode(batch: StepBatch): { step: Int32Array; ropes: Float32Array } {
    const { sequences } = batch;
    let tokens = 0;
    let blocks = 0;
    let ropeValues = 0;
    for (const sequence of sequences) {
      tokens += sequence.tokenIds.length;
      blocks += sequence.blockIds.length;
      for (const rope of sequence.ropes) ropeValues += 1 + rope.inverseFrequencies.length;
    }
    const size = STEP_HEAD + sequences.length * SEQUENCE_COLUMNS + blocks + tokens;
    if (size > this.#step.length) this.#step = new Int32Array(2 * size);
    if (ropeValues > this.#ropes.length) this.#ropes = new Float32Array(2 * ropeValues);
    this.#writeStep(batch, tokens, blocks);
    this.#writeRopes(batch);
    return { step: this.#step.subarray(0, size), ropes: this.#ropes.subarray(0, ropeValues) };
  }

  #writeStep({ sequences }: StepBatch, tokens: number, blocks: number): void {
    const out = this.#step;
    out[0] = sequences.length;
    out[1] = tokens;
    let row = STEP_HEAD;
    let block = STEP_HEAD + sequences.length * SEQUENCE_COLUMNS;
    let token = block + blocks;
    for (const sequence of sequences) {
      out[row++] = sequence.tokenIds.length;
      out[row++] = sequence.firstPosition;
      out[row++] = sequence.logitRows;
      out[row++] = sequence.cancelSlot;
      out[row++] = sequence.blockIds.length;
      out[row++] = 1 + (sequence.stateSource ?? -1);
      out[row++] = 1 + (sequence.stateTarget ?? -1);
      for (const id of sequence.blockIds) out[block++] = id;
      out.set(sequence.tokenIds, token);
      token += sequence.tokenIds.length;
    }
  }

  #writeRopes({ sequences }: StepBatch): void {
    let at = 0;
    for (const sequence of sequences) {
      for (const { attentionFactor, inverseFrequencies } of sequence.ropes) {
        this.#ropes[at++] = attentionFactor;
        this.#ropes.set(inverseFrequencies, at);
        at += inverseFrequencies.length;
      }
    }
  }
}

/** [layer, count], then per expert PLAN_COLUMNS numbers: expert, place, slot, transfer. Reuses its array. */
export class PlanEncoder {
  #plan = new Int32Array(PLAN_HEAD + 64 * PLAN_COLUMNS);

  encode(assignment: LayerAssignment): Int32Array {
    const { layer, count, expertIds, places, slots, transfers } = assignment;
    const size = PLAN_HEAD + count * PLAN_COLUMNS;
    if (size > this.#plan.length) this.#plan = new Int32Array(2 * size);
    const out = this.#plan;
    out[0] = layer;
    out[1] = count;
    let at = PLAN_HEAD;
    for (let i = 0; i < count; i++) {
      out[at++] = expertIds[i] ?? -1;
      out[at++] = places[i] ?? -1;
      out[at++] = slots[i] ?? -1;
      out[at++] = transfers[i] ?? 0;
    }
    return out.subarray(0, size);
  }
}

/** The inverse of PlanEncoder.encode. Throws RangeError where the array is not a plan. */
export function decodePlan(plan: Int32Array): LayerAssignment {
  const layer = plan[0];
  const count = plan[1];
  if (layer === undefined || count === undefined || plan.length !== PLAN_HEAD + count * PLAN_COLUMNS) {
    throw new RangeError(`not a plan: ${plan.length} numbers`);
  }
  const column = (index: number) =>
    Int32Array.from({ length: count }, (_, i) => plan[PLAN_HEAD + i * PLAN_COLUMNS + index] ?? 0);
  return { layer, count, expertIds: column(0), places: column(1), slots: column(2), transfers: column(3) };
}
