/**
 * Where a model's bytes lie: experts on their groups' units, all else on the GPU's side (or over the units where there
 * is no GPU), copies of experts in VRAM. Pure arithmetic on byte counts, for engine/load.ts: the memory check before
 * loading and the report of model.plan(). Which expert is in VRAM at a moment is expert-cache.ts' to say.
 */

/** Bytes of one kind of data in one place: "unit 0", "units" (spread over all), "gpu", "vram". */
export type PlacedBytes = { place: string; kind: 'dense' | 'experts' | 'kv' | 'states'; sizeBytes: number };

/** `slotBytes`: of all VRAM slots; `stateBytes`: of all slots for states. */
export type HeldBytes = {
  denseBytes: number;
  expertBytes: number;
  kvBytes: number;
  stateBytes: number;
  slotBytes: number;
};

/** Units in groups of `tpDegree`; gpu 'off' is no GPU lane. */
export type PlacementShape = { units: number; tpDegree: number; ndpGroups: number; gpu: string };

/** Every byte once; expert e of a layer is on group e mod ndpGroups, cut over the group's units. */
export function placedBytes(
  { units, tpDegree, ndpGroups, gpu }: PlacementShape,
  numExperts: number,
  bytes: HeldBytes,
): PlacedBytes[] {
  const placed: PlacedBytes[] = [];
  for (let unit = 0; unit < units; unit++) {
    const group = Math.floor(unit / tpDegree);
    const groupUnits = Math.min(tpDegree, units - group * tpDegree);
    const groupExperts = Math.ceil(Math.max(0, numExperts - group) / ndpGroups);
    const share = numExperts > 0 ? groupExperts / numExperts / groupUnits : 0;
    placed.push({ place: `unit ${unit}`, kind: 'experts', sizeBytes: Math.round(bytes.expertBytes * share) });
  }
  const rest = gpu === 'off' ? 'units' : 'gpu';
  placed.push({ place: rest, kind: 'dense', sizeBytes: bytes.denseBytes });
  placed.push({ place: rest, kind: 'kv', sizeBytes: bytes.kvBytes });
  if (bytes.stateBytes > 0) placed.push({ place: rest, kind: 'states', sizeBytes: bytes.stateBytes });
  if (gpu !== 'off') placed.push({ place: 'vram', kind: 'experts', sizeBytes: bytes.slotBytes });
  return placed;
}

/** Experts that fit into the VRAM budget, at most all. */
export function slotCount(vramBytes: number, slabBytes: number, experts: number): number {
  return slabBytes > 0 ? Math.min(experts, Math.floor(vramBytes / slabBytes)) : 0;
}
