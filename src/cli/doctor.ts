/**
 * `nearmoe doctor`: what nearmoe finds on this machine: addon, instruction sets, cores, memory, demo model, and for
 * what is missing the command that mends it. Called by main.ts. Loads no model.
 */
import os from 'node:os';
import { binding, type NativeCpuInfo } from '../binding.js';
import { type GpuProbe, probeGpu } from '../device/gpu.js';
import { checkIsa } from '../engine/settings.js';
import { NearmoeError } from '../errors.js';
import type { CliContext } from './context.js';
import { demoModelFolder } from './demo-model.js';
import { formatBytes } from './format.js';

export type DoctorFlags = { json?: boolean };

type Finding = { name: string; ok: boolean; text: string; hint: string };

/** Runs the command; resolves to 0 where everything that nearmoe needs is there, else 1. */
export function doctorCommand(version: string, flags: DoctorFlags, context: CliContext): number {
  let cpu: NativeCpuInfo | undefined;
  let gpu: GpuProbe | undefined;
  const findings = [
    finding('node', () => `${process.version} on ${process.platform}-${process.arch}, nearmoe ${version}`),
    finding('addon', () => {
      cpu = binding().cpuInfo();
      gpu = probeGpu('cuda');
      return `loaded, version ${binding().version()}`;
    }),
    finding('kernels', () => kernelsText(cpu, context.env.NEARMOE_ISA ?? '')),
    finding('demo model', demoModelFolder),
  ];
  const memory = { totalBytes: os.totalmem(), freeBytes: os.freemem() };
  const ok = findings.every((entry) => entry.ok);
  if (flags.json) {
    context.stdout.write(
      `${JSON.stringify({ ok, version, node: process.version, findings, cpu, gpu, memory })}\n`,
    );
  } else {
    const lines = [
      ...findings.flatMap(findingLines),
      ...(cpu ? cpuLines(cpu) : []),
      ...(gpu ? gpuLines(gpu) : []),
      memoryLine(memory),
    ];
    context.stdout.write(`${lines.join('\n')}\n`);
  }
  return ok ? 0 : 1;
}

/** The instruction set in use and those to choose from. Throws OptionError where a forced one cannot run. */
function kernelsText(cpu: NativeCpuInfo | undefined, forced: string): string {
  if (cpu === undefined) return 'not known without the addon';
  checkIsa('', cpu, forced);
  const why = forced === '' ? '' : ', forced by NEARMOE_ISA';
  return `${cpu.isa}${why} (runnable: ${cpu.runnableIsas.join(', ')})`;
}

function finding(name: string, look: () => string): Finding {
  try {
    return { name, ok: true, text: look(), hint: '' };
  } catch (error) {
    if (!(error instanceof NearmoeError)) throw error;
    return { name, ok: false, text: error.message.replaceAll(/\s+/g, ' ').trim(), hint: error.hint };
  }
}

function findingLines({ name, ok, text, hint }: Finding): string[] {
  return [row(name, ok ? text : `MISSING: ${text}`), ...(hint === '' ? [] : [row('', hint)])];
}

function cpuLines(cpu: NativeCpuInfo): string[] {
  return [
    row('cpu', os.cpus()[0]?.model.trim() ?? 'unknown'),
    row('cores', `${cpu.physicalCores} physical, ${cpu.logicalCores} logical, ${cpu.numaNodes} NUMA nodes`),
    row('features', cpu.features.join(' ')),
    row('os saves', cpu.savedRegisters.length > 0 ? `${cpu.savedRegisters.join(' ')} registers` : 'not told'),
    row('huge pages', cpu.hugePages),
  ];
}

function gpuLines(gpu: GpuProbe): string[] {
  if ('reason' in gpu) {
    return [row('gpu', `none: ${gpu.reason}`), row('', '--gpu host plays one on CPU threads')];
  }
  return [
    ...gpu.devices.map((device) => {
      const { name, computeCapability, totalBytes, freeBytes, unifiedMemory } = device;
      const memory = `${formatBytes(totalBytes)}${unifiedMemory ? ' shared with the CPU' : ''}, ${formatBytes(freeBytes)} free`;
      return row('gpu', `${name}, compute capability ${(computeCapability / 10).toFixed(1)}, ${memory}`);
    }),
    row('gpu library', gpu.build),
  ];
}

function memoryLine({ totalBytes, freeBytes }: { totalBytes: number; freeBytes: number }): string {
  return row('memory', `${formatBytes(totalBytes)}, ${formatBytes(freeBytes)} free`);
}

function row(label: string, text: string): string {
  return `${label.padEnd(11)} ${text}`;
}
