/**
 * Where a model's bytes go, and why: experts over the NDP units, all else on the GPU's side (or over the units where
 * there is no GPU), and what the VRAM budget holds in expert slots. Pure arithmetic on byte counts, for the memory
 * check before loading and for reports; which expert is in VRAM at a moment is expert-cache.ts' to say.
 */
import { MemoryError, OptionError } from '../errors.js';

export type PlacementInput = {
  units: number;
  /** Units an expert is cut over. */
  tpDegree: number;
  /** False: no GPU lane, the units compute everything. */
  gpu: boolean;
  /** Weights outside the experts. */
  denseBytes: number;
  /** Of all experts of all layers. */
  expertBytes: number;
  /** One expert's three matrices, the largest of the model. */
  slabBytes: number;
  /** MoE layers, and experts of one. */
  moeLayers: number;
  numExperts: number;
  kvBytes: number;
  /** Bytes of GPU memory for experts. */
  vramBytes: number;
};

/** Bytes of one kind of data in one place: "unit 0", "units" (spread over all), "gpu", "vram". */
export type PlacedPart = { place: string; kind: 'dense' | 'experts' | 'kv'; sizeBytes: number; why: string };

export type Placement = {
  parts: PlacedPart[];
  ndpGroups: number;
  /** VRAM slots, and the share of all experts that they hold. */
  expertSlots: number;
  residentShare: number;
  /** Slots per MoE layer, rounded down. */
  slotsPerLayer: number;
  totalBytes: number;
};

/** Throws OptionError where the budget or the units are out of their domain. */
export function planPlacement(input: PlacementInput): Placement {
  const { units, tpDegree, gpu, moeLayers, numExperts } = input;
  if (!Number.isInteger(units) || units < 1) throw new OptionError('units', 'an integer >= 1', units);
  if (!Number.isInteger(tpDegree) || tpDegree < 1 || tpDegree > units) {
    throw new OptionError('tpDegree', `an integer from 1 to ${units}`, tpDegree);
  }
  const ndpGroups = Math.ceil(units / tpDegree);
  const experts = moeLayers * numExperts;
  const expertSlots = gpu ? slotCount(input.vramBytes, input.slabBytes, experts) : 0;
  const parts = [...unitParts(input, ndpGroups), ...denseParts(input)];
  if (gpu) parts.push(slotPart(input, expertSlots, experts));
  return {
    parts,
    ndpGroups,
    expertSlots,
    residentShare: experts > 0 ? expertSlots / experts : 0,
    slotsPerLayer: moeLayers > 0 ? Math.floor(expertSlots / moeLayers) : 0,
    totalBytes: parts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
  };
}

/** Experts that fit into the VRAM budget, at most all. */
export function slotCount(vramBytes: number, slabBytes: number, experts: number): number {
  if (!(vramBytes >= 0)) throw new OptionError('vram', 'bytes >= 0', vramBytes);
  return slabBytes > 0 ? Math.min(experts, Math.floor(vramBytes / slabBytes)) : 0;
}

/** Throws MemoryError with the figures where the parts together exceed what is available. */
export function checkFits(placement: Placement, availableBytes: number, model: string): void {
  if (placement.totalBytes <= availableBytes) return;
  const of = (kind: PlacedPart['kind']): string =>
    sizeText(placement.parts.reduce((sum, part) => sum + (part.kind === kind ? part.sizeBytes : 0), 0));
  throw new MemoryError(
    `${model} needs ${sizeText(placement.totalBytes)} of memory (experts ${of('experts')}, other weights ` +
      `${of('dense')}, KV cache ${of('kv')}), but only ${sizeText(availableBytes)} are available`,
    placement.totalBytes,
    availableBytes,
    {
      hint: 'Free memory, lower `maxContext`, `kvTokens` or `vram`, or use a more strongly quantised model.',
    },
  );
}

/** Bytes in the unit that people read: MiB below half a GiB, else GiB. */
function sizeText(sizeBytes: number): string {
  return sizeBytes >= 2 ** 29
    ? `${(sizeBytes / 2 ** 30).toFixed(2)} GiB`
    : `${(sizeBytes / 2 ** 20).toFixed(1)} MiB`;
}

/** Experts on their groups' units; expert e is on group e mod ndpGroups. */
function unitParts(input: PlacementInput, ndpGroups: number): PlacedPart[] {
  const { units, tpDegree, numExperts, expertBytes } = input;
  return Array.from({ length: units }, (_, unit) => {
    const group = Math.floor(unit / tpDegree);
    const groupUnits = Math.min(tpDegree, units - group * tpDegree);
    const groupExperts = Math.ceil(Math.max(0, numExperts - group) / ndpGroups);
    const share = numExperts > 0 ? groupExperts / numExperts / groupUnits : 0;
    const cut = groupUnits === 1 ? 'all' : `1/${groupUnits}`;
    const why =
      ndpGroups === 1
        ? `${cut} of every expert, so that whichever are routed to load the units evenly`
        : `${cut} of experts ${group}, ${group + ndpGroups}, ... of each layer: group ${group} of ${ndpGroups}`;
    return { place: `unit ${unit}`, kind: 'experts', sizeBytes: Math.round(expertBytes * share), why };
  });
}

function denseParts({ gpu, denseBytes, kvBytes }: PlacementInput): PlacedPart[] {
  const place = gpu ? 'gpu' : 'units';
  const why = gpu
    ? 'attention, norms and router run on the GPU'
    : 'there is no GPU lane, the units compute all';
  return [
    { place, kind: 'dense', sizeBytes: denseBytes, why },
    { place, kind: 'kv', sizeBytes: kvBytes, why: 'beside the attention that reads it' },
  ];
}

function slotPart({ vramBytes, slabBytes }: PlacementInput, slots: number, experts: number): PlacedPart {
  const why = `copies of ${slots} of ${experts} experts (${sizeText(slabBytes)} each): what ${sizeText(vramBytes)} hold`;
  return { place: 'vram', kind: 'experts', sizeBytes: slots * slabBytes, why };
}
