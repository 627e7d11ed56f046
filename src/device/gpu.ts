/**
 * Whether a GPU answers, and if not, why and what mends it. Called when a model is loaded and by cli/doctor. Opens no
 * model; the libraries behind it are native/runtime/gpu_library.cc's.
 */
import { binding, type GpuGraphs, type NativeGpu } from '../binding.js';
import { GpuError } from '../errors.js';
import type { DeviceInfo } from './device.js';

export type GpuBackend = 'cuda' | 'emulated';

export function isGpuBackend(gpu: DeviceInfo['gpu']): gpu is GpuBackend {
  return gpu === 'cuda' || gpu === 'emulated';
}

/** The usable devices of a backend and what its library was built with, or why there is none. */
export type GpuProbe = { devices: NativeGpu[]; build: string } | { devices: []; reason: string };

export function probeGpu(backend: GpuBackend): GpuProbe {
  try {
    return binding().probeGpu(backend);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ERR_GPU') {
      return { devices: [], reason: error.message };
    }
    throw error;
  }
}

/** What option `gpu` comes to on this machine: 'auto' takes a GPU that is there. Throws GpuError. */
export function resolveGpu(option: 'auto' | 'off' | 'host' | GpuBackend): 'off' | 'host' | GpuBackend {
  if (option === 'off' || option === 'host') return option;
  const backend = option === 'auto' ? 'cuda' : option;
  const probe = probeGpu(backend);
  if (!('reason' in probe)) return backend;
  if (option === 'auto') return 'off';
  throw new GpuError(`No GPU for \`gpu: '${option}'\`: ${probe.reason}`, {
    hint: "With `gpu: 'auto'` the NDP units take over where there is no GPU.",
  });
}

/** A GPU that is fed without CUDA graphs decodes more slowly than it could: says why. */
export function graphWarnings(device: { info: DeviceInfo; gpuGraphs(): GpuGraphs }): string[] {
  if (!isGpuBackend(device.info.gpu)) return [];
  const { off } = device.gpuGraphs();
  return off === '' ? [] : [`Decode is submitted to the GPU call by call, without CUDA graphs: ${off}.`];
}
