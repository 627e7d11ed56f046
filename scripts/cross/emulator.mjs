/**
 * Programs under qemu-user with a named CPU model: what a test executable says there, and whether the emulator
 * refuses the instructions which that model lacks. Used by aarch64.mjs.
 */
import { execFileSync, spawn } from 'node:child_process';
import path from 'node:path';

/** @typedef {{ status: number | null, signal: string | null, output: string }} Outcome */

/** What tells the two emulated architectures apart; each probe is an instruction that only some CPU models have. */
export const architectures = {
  aarch64: {
    qemu: 'qemu-aarch64-static',
    compiler: 'aarch64-linux-gnu-g++',
    libraries: '/usr/aarch64-linux-gnu',
    succeed: 'mov w0, #0',
    probes: {
      dotprod: '.inst 0x4e829420', // sdot v0.4s, v1.16b, v2.16b
      i8mm: '.inst 0x4e82a420', // smmla v0.4s, v1.16b, v2.16b
    },
  },
  'x86-64': {
    qemu: 'qemu-x86_64-static',
    compiler: 'c++',
    libraries: '/',
    succeed: 'xorl %eax, %eax',
    probes: {
      avx2: 'vpaddd %ymm0, %ymm0, %ymm0',
      fma: 'vfmadd231ps %ymm0, %ymm0, %ymm0',
      f16c: 'vcvtph2ps %xmm0, %ymm0',
      avx512: 'vpaddd %zmm0, %zmm0, %zmm0',
    },
  },
};

/** @typedef {keyof typeof architectures} Architecture */

/**
 * @param {Architecture} architecture
 * @param {string} cpu qemu's name of the CPU model, features behind it ("Haswell,-xsave")
 * @param {string[]} command executable of that architecture and its arguments
 * @returns {Promise<Outcome>} output: stdout and stderr without the emulator's own warnings
 */
export function emulate(architecture, cpu, command) {
  const { qemu, libraries } = architectures[architecture];
  return new Promise((resolve) => {
    const child = spawn(qemu, ['-cpu', cpu, ...command], {
      env: { ...process.env, QEMU_LD_PREFIX: libraries, NEARMOE_ISA: '' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => resolve({ status: 127, signal: null, output: `${qemu}: ${error.message}` }));
    child.on('close', (status, signal) => {
      const lines = output.split('\n').filter((line) => !line.includes('warning: TCG'));
      resolve({ status, signal, output: lines.join('\n') });
    });
  });
}

/**
 * @typedef {object} CpuModel
 * @property {string} cpu qemu's name
 * @property {string[]} isas the kernel tables that it can run, slowest first
 * @property {string[]} lacks the probes that must end in SIGILL; the others must run
 */

/**
 * @param {Architecture} architecture
 * @param {string} folder where the probes are built
 * @param {CpuModel[]} models
 * @returns {Promise<string[]>} problems: a test under such an emulator could not show a wrong dispatch
 */
export async function checkRefusals(architecture, folder, models) {
  const { compiler, probes, succeed } = architectures[architecture];
  const problems = [];
  for (const [name, instruction] of Object.entries(probes)) {
    const executable = path.join(folder, `probe-${architecture}-${name}`);
    const source = `.globl main\nmain: ${instruction}\n ${succeed}\n ret\n.section .note.GNU-stack,"",%progbits\n`;
    execFileSync(compiler, ['-x', 'assembler', '-', '-o', executable], { input: source });
    for (const { cpu, lacks } of models) {
      const { status, signal, output } = await emulate(architecture, cpu, [executable]);
      const refused = signal === 'SIGILL' || status === 132;
      if (lacks.includes(name) ? !refused : status !== 0) {
        problems.push(`${cpu}: ${name} ended with ${signal ?? status} ${output}`);
      }
    }
  }
  return problems;
}

/**
 * Runs kernel_tests on a CPU model: exactly the tables that the model can run must offer themselves, and no case
 * may fail or die.
 * @param {Architecture} architecture
 * @param {string} executable
 * @param {CpuModel} model
 * @param {string} filter only the cases whose name holds it
 * @returns {Promise<{ cases: number, problems: string[] }>}
 */
export async function runKernelTests(architecture, executable, { cpu, isas }, filter) {
  const listed = await emulate(architecture, cpu, [executable, '--list']);
  const offered = listed.output.split('\n').flatMap((line) => /^(\S+) can be forced$/.exec(line)?.[1] ?? []);
  const problems = [];
  if (offered.join() !== isas.join()) {
    problems.push(`expected the tables ${isas.join(', ')}, got ${offered.join(', ') || listed.output}`);
  }
  const { status, signal, output } = await emulate(architecture, cpu, [
    executable,
    ...(filter ? [filter] : []),
  ]);
  const lines = output.trimEnd().split('\n');
  problems.push(...lines.filter((line) => line.startsWith('FAILED')));
  const passed = lines.filter((line) => line.startsWith('ok '));
  if (status !== 0 && problems.length === 0) {
    problems.push(`ended with ${signal ?? status} after "${passed.at(-1) ?? 'no case'}": ${lines.at(-1)}`);
  }
  return { cases: passed.length, problems };
}
