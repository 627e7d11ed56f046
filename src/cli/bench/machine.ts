/**
 * The machine's side of a benchmark: its ceilings, measured by the addon with as many threads as the model computes
 * with, and the process's memory. Called by the bench and serve commands while the model's own threads sleep.
 */
import { readFileSync } from 'node:fs';
import { binding, type NativeCeilingOptions } from '../../binding.js';
import { availableBytes } from '../../engine/memory.js';

/** 1e9 bytes, or 1e9 multiply-accumulates, per second. */
export type Ceilings = { readBandwidthGBs: number; int8GMACs: number; floatGMACs: number };

export type CeilingSettings = { threads: number; pinThreads: boolean; bufferBytes: number; isa: string };

const READ_MS = 150;
const MULTIPLY_MS = 60;
const LEAST_BUFFER_BYTES = 512 * 2 ** 20;

/** A buffer of three last-level caches, at least 512 MiB, at most a third of the memory that is free. */
export function readBufferBytes(
  cacheBytes = lastLevelCacheBytes(),
  freeBytes: number = availableBytes(),
): number {
  return Math.floor(Math.min(Math.max(LEAST_BUFFER_BYTES, 3 * cacheBytes), freeBytes / 3));
}

/** The read bandwidth alone, 1e9 bytes/s. */
export function measureReadBandwidth(settings: CeilingSettings): number {
  return binding().measureCeiling({ ...settings, kind: 'read', timeMs: READ_MS });
}

/** All ceilings once: about a second. The scalar table has no peak of its own: its figures are 0. */
export function measureCeilings(settings: CeilingSettings): Ceilings {
  return {
    readBandwidthGBs: measureReadBandwidth(settings),
    ...multiplyPeaks(settings),
  };
}

/** Peaks of one instruction set. */
export function multiplyPeaks(settings: CeilingSettings): Pick<Ceilings, 'int8GMACs' | 'floatGMACs'> {
  if (settings.isa === 'scalar') return { int8GMACs: 0, floatGMACs: 0 };
  const peak = (kind: NativeCeilingOptions['kind']) =>
    binding().measureCeiling({ ...settings, kind, timeMs: MULTIPLY_MS });
  return { int8GMACs: peak('int8'), floatGMACs: peak('float') };
}

/** Most bytes of memory this process has held at a time. */
export function peakMemoryBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

/** Linux tells it for the first core; elsewhere 0, and the least buffer is taken. */
function lastLevelCacheBytes(): number {
  const kibibytes = [4, 3, 2].map((index) => {
    try {
      return Number.parseInt(
        readFileSync(`/sys/devices/system/cpu/cpu0/cache/index${index}/size`, 'utf8'),
        10,
      );
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
      throw error;
    }
  });
  return (kibibytes.find((size) => size > 0) ?? 0) * 1024;
}
