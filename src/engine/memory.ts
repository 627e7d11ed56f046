/**
 * How much memory this process may still take, and whether a model fits, told before a byte of it is loaded. Linux:
 * the smaller of MemAvailable and what the control group leaves; elsewhere the system's free memory. Called by load.ts.
 */
import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { MemoryError } from '../errors.js';
import type { PlacedBytes } from '../placement/placement.js';

/** Reads a file of /proc or /sys; undefined where it is not there. */
export type ReadText = (path: string) => string | undefined;

/** Bytes that can be taken without swapping. */
export function availableBytes(readText: ReadText = readSystemFile): number {
  const meminfo = readText('/proc/meminfo');
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(meminfo ?? '')?.[1];
  const system = kibibytes === undefined ? freemem() : Number(kibibytes) * 1024;
  return Math.min(system, controlGroupBytes(readText));
}

/** Throws MemoryError with the figures where the parts together exceed what is available. */
export function checkMemory(parts: readonly PlacedBytes[], available: number, model: string): void {
  const needed = parts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  if (needed <= available) return;
  const byKind = (kind: PlacedBytes['kind']) =>
    parts.reduce((sum, part) => sum + (part.kind === kind ? part.sizeBytes : 0), 0);
  const states = byKind('states');
  throw new MemoryError(
    `${model} needs ${gib(needed)} of memory (experts ${gib(byKind('experts'))}, other weights ${gib(byKind('dense'))}, ` +
      `KV cache ${gib(byKind('kv'))}${states > 0 ? `, states ${gib(states)}` : ''}), but only ${gib(available)} are available`,
    needed,
    available,
    {
      hint: 'Free memory, lower `maxContext`, `kvTokens`, `maxSequences` or `vram`, or use a more strongly quantised model.',
    },
  );
}

/** What the control group (v2 or v1) allows beyond what it uses; page cache it can drop counts as free. */
function controlGroupBytes(readText: ReadText): number {
  const folders = [
    {
      limit: '/sys/fs/cgroup/memory.max',
      used: '/sys/fs/cgroup/memory.current',
      stat: '/sys/fs/cgroup/memory.stat',
    },
    {
      limit: '/sys/fs/cgroup/memory/memory.limit_in_bytes',
      used: '/sys/fs/cgroup/memory/memory.usage_in_bytes',
      stat: '/sys/fs/cgroup/memory/memory.stat',
    },
  ];
  for (const { limit, used, stat } of folders) {
    const most = Number(readText(limit)?.trim() ?? Number.NaN);
    const taken = Number(readText(used)?.trim() ?? Number.NaN);
    if (!Number.isFinite(most) || !Number.isFinite(taken)) continue;
    const droppable = Number(/^(?:total_)?inactive_file (\d+)$/m.exec(readText(stat) ?? '')?.[1] ?? 0);
    return Math.max(0, most - taken + droppable);
  }
  return Infinity;
}

function gib(sizeBytes: number): string {
  return sizeBytes >= 2 ** 29
    ? `${(sizeBytes / 2 ** 30).toFixed(2)} GiB`
    : `${(sizeBytes / 2 ** 20).toFixed(1)} MiB`;
}

function readSystemFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Absent on other systems and in other control group versions: the caller tries the next source.
    return undefined;
  }
}
