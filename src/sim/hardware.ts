/**
 * Hardware descriptions of the simulator: GPUs, NDP units, the host, each number with its source in hardware/*.json.
 * Read by the simulator's set-up and by `plan`; computes no times (gpu-times.ts and unit-times.ts do).
 */
import { fileURLToPath } from 'node:url';
import { OptionError } from '../errors.js';
import { type DataNode, readDataFile } from './data-file.js';

export type GpuProfile = {
  id: string;
  name: string;
  /** PCIe generation and width, or "unified memory". */
  link: string;
  memoryBytes: number;
  memoryBandwidthGBs: number;
  /** Dense FP16 with FP32 accumulation. */
  fp16Tflops: number;
  /** What a copy from host to device reaches. */
  hostToDeviceGBs: number;
};

/** A near-data unit, or a CPU that plays one. */
export type UnitProfile = {
  id: string;
  name: string;
  kind: 'ndp' | 'cpu';
  bandwidthGBs: number;
  /** Share of the bandwidth that a streamed read reaches. */
  bandwidthShare: number;
  gflops: number;
  bufferBytes: number;
  /** Between host memory controller and unit, for activations. */
  hostLinkGBs: number;
  /** From one expert slice to the next. */
  expertCommandUs: number;
  /** A slice's columns are a multiple of this. */
  sliceColumns: number;
  capacityBytes: number;
};

export type KernelProfile = {
  gemvFloorUs: number;
  gemvBandwidthShare: number;
  /** Share of nominal TFLOPS that a product reaches, by weight bytes, ascending. */
  gemmShares: readonly { weightBytes: number; share: number }[];
  attentionKernels: number;
  expertKernels: number;
  maxGemvTokens: number;
};

export type HostProfile = {
  routingSyncUs: number;
  planUs: number;
  gpuLaunchUs: number;
  ndpCommandUs: number;
  ndpResultUs: number;
  transferLatencyUs: number;
  reservedBytes: number;
};

/** The law fitted to measured layers: see expert-fit.ts. */
export type ExpertFit = {
  floorUs: number;
  bandwidthShare: number;
  computeShare: number;
  /** Joins reading and computing: (read^s + compute^s)^(1/s). */
  sharpness: number;
};

export type HardwareData = {
  gpus: readonly GpuProfile[];
  units: readonly UnitProfile[];
  kernels: KernelProfile;
  host: HostProfile;
  expertFit: ExpertFit;
};

const folder = fileURLToPath(new URL('./hardware/', import.meta.url));

/** All descriptions of a folder (default: the ones that ship). Throws ModelFormatError. */
export function readHardware(from = folder): HardwareData {
  const base = from.endsWith('/') ? from : `${from}/`;
  const shared = readDataFile(`${base}kernels-and-host.json`);
  return {
    gpus: readDataFile(`${base}gpus.json`).nodes('gpus').map(readGpu),
    units: readDataFile(`${base}ndp-units.json`).nodes('units').map(readUnit),
    kernels: readKernels(shared.node('kernels')),
    host: readHost(shared.node('host')),
    expertFit: readExpertFit(readDataFile(`${base}gpu-expert-fit.json`).node('law')),
  };
}

/** Throws OptionError for an unknown id. */
export function gpuById(hardware: HardwareData, id: string): GpuProfile {
  const found = hardware.gpus.find((gpu) => gpu.id === id);
  if (found === undefined) throw new OptionError('gpu', oneOf(hardware.gpus), id);
  return found;
}

/** Throws OptionError for an unknown id. */
export function unitById(hardware: HardwareData, id: string): UnitProfile {
  const found = hardware.units.find((unit) => unit.id === id);
  if (found === undefined) throw new OptionError('unit', oneOf(hardware.units), id);
  return found;
}

function oneOf(entries: readonly { id: string }[]): string {
  return `one of ${entries.map(({ id }) => `"${id}"`).join(', ')}`;
}

function readGpu(node: DataNode): GpuProfile {
  return {
    id: node.text('id'),
    name: node.text('name'),
    link: node.text('link'),
    memoryBytes: node.sourced('memoryGB') * 1e9,
    memoryBandwidthGBs: node.sourced('memoryBandwidthGBs'),
    fp16Tflops: node.sourced('fp16Tflops'),
    hostToDeviceGBs: node.sourced('hostToDeviceGBs'),
  };
}

function readUnit(node: DataNode): UnitProfile {
  const kind = node.text('kind');
  if (kind !== 'ndp' && kind !== 'cpu') throw node.wrong('kind', '"ndp" or "cpu"');
  const bandwidthShare = node.sourced('bandwidthShare');
  if (bandwidthShare > 1) throw node.node('bandwidthShare').wrong('value', 'a share of at most 1');
  return {
    id: node.text('id'),
    name: node.text('name'),
    kind,
    bandwidthGBs: node.sourced('bandwidthGBs'),
    bandwidthShare,
    gflops: node.sourced('gflops'),
    bufferBytes: node.sourced('bufferKB') * 1024,
    hostLinkGBs: node.sourced('hostLinkGBs'),
    expertCommandUs: node.sourced('expertCommandUs', 0),
    sliceColumns: node.sourced('sliceColumns', 1),
    capacityBytes: node.sourced('capacityGB') * 1e9,
  };
}

function readKernels(node: DataNode): KernelProfile {
  const shares = node.node('gemmShares');
  shares.text('source');
  return {
    gemvFloorUs: node.sourced('gemvFloorUs', 0),
    gemvBandwidthShare: node.sourced('gemvBandwidthShare'),
    gemmShares: shares.nodes('points').map((point) => ({
      weightBytes: point.number('weightMB') * 1e6,
      share: point.number('share'),
    })),
    attentionKernels: node.sourced('attentionKernels'),
    expertKernels: node.sourced('expertKernels'),
    maxGemvTokens: node.sourced('maxGemvTokens'),
  };
}

function readHost(node: DataNode): HostProfile {
  return {
    routingSyncUs: node.sourced('routingSyncUs', 0),
    planUs: node.sourced('planUs', 0),
    gpuLaunchUs: node.sourced('gpuLaunchUs', 0),
    ndpCommandUs: node.sourced('ndpCommandUs', 0),
    ndpResultUs: node.sourced('ndpResultUs', 0),
    transferLatencyUs: node.sourced('transferLatencyUs', 0),
    reservedBytes: node.sourced('reservedGB', 0) * 1e9,
  };
}

function readExpertFit(node: DataNode): ExpertFit {
  return {
    floorUs: node.number('floorUs'),
    bandwidthShare: node.number('bandwidthShare', Number.MIN_VALUE),
    computeShare: node.number('computeShare', Number.MIN_VALUE),
    sharpness: node.number('sharpness', 1),
  };
}
