/**
 * Routing for the simulated device: experts of each token from a record, whether synthetic, recorded by the engine or
 * a public trace. Made by simulator.ts; a sequence is told by its cancel slot.
 */
import type { StepSequence } from '../../device/device.js';
import type { RoutingSource } from '../../device/operation-times.js';
import type { RoutingRecord } from '../../engine/result.js';
import { DeviceError } from '../../errors.js';

export class RecordedRouting implements RoutingSource {
  /** [layers] index of a layer in the record, -1 where it does not route. */
  private readonly indexOfLayer: Int32Array;

  /** `records` by cancel slot; all have the same shape. */
  constructor(
    private readonly records: ReadonlyMap<number, RoutingRecord>,
    layers: number,
  ) {
    this.indexOfLayer = new Int32Array(layers).fill(-1);
    for (const record of records.values()) {
      record.layers.forEach((layer, index) => {
        this.indexOfLayer[layer] = index;
      });
    }
  }

  fill(
    layer: number,
    { cancelSlot, firstPosition, tokenIds }: StepSequence,
    out: Int32Array,
    at: number,
  ): void {
    const record = this.records.get(cancelSlot);
    const index = this.indexOfLayer[layer] ?? -1;
    const end = firstPosition + tokenIds.length;
    if (record === undefined || index < 0 || end > record.tokens) {
      throw new DeviceError(
        `No routing is recorded for request ${cancelSlot}, layer ${layer}, token ${end - 1}`,
      );
    }
    const { topK, layers, ids } = record;
    const stride = layers.length * topK;
    let from = firstPosition * stride + index * topK;
    let to = at;
    for (let token = firstPosition; token < end; token++) {
      for (let k = 0; k < topK; k++) out[to++] = ids[from + k] as number;
      from += stride;
    }
  }
}
