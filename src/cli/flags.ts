/**
 * The options of the command line and how they become LoadOptions and GenerateOptions. Called by main.ts (declares)
 * and the commands (convert). Values are only turned from text into numbers here; options.ts checks their domains.
 */
import type { Command } from 'commander';
import { OptionError } from '../errors.js';
import type { GenerateOptions, LoadOptions } from '../options.js';
import { demoModelFolder } from './demo-model.js';

/** How the model is loaded; the same for every command that runs one. */
export type LoadFlags = {
  model?: string;
  quantize?: LoadOptions['quantize'];
  repackCache?: string;
  units?: number;
  threadsPerUnit?: number;
  tpDegree?: number;
  gpu?: LoadOptions['gpu'];
  gpuThreads?: number;
  vram?: string;
  transferBandwidth?: number;
  policy?: string;
  prefetch?: string;
  cachePolicy?: string;
  kvDtype?: LoadOptions['kvDtype'];
  maxContext?: number;
  isa?: string;
  pin: boolean;
};

/** How text is generated. */
export type GenerateFlags = {
  maxTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
  ignoreEos?: boolean;
  json?: boolean;
  trace?: string;
  recordRouting?: string;
};

/** Declares the load options on a command. */
export function addLoadFlags(command: Command): Command {
  return command
    .optionsGroup('Model and machine:')
    .option('--model <dir>', 'folder of a Hub checkpoint (default: the demo model)')
    .option('--quantize <format>', 'quantise float weights at load: q8_0, q4_0, q4_k, ...')
    .option('--repack-cache <dir>', 'keep the packed weights there and map them at the next start')
    .option('--units <n>', 'NDP units (default: one per physical core)', numeric('units'))
    .option('--threads-per-unit <n>', 'compute threads of each unit', numeric('threadsPerUnit'))
    .option('--tp-degree <n>', 'units that one expert is cut over (default: all)', numeric('tpDegree'))
    .option('--gpu <kind>', 'GPU: auto, cuda, host, emulated or off (default: auto)')
    .option('--gpu-threads <n>', 'threads of the host GPU lane (default: 1)', numeric('gpuThreads'))
    .option('--vram <size>', 'GPU memory for experts, such as 512MB')
    .option('--transfer-bandwidth <GB/s>', 'of the host GPU lane', numeric('transferBandwidthGBs'))
    .option('--policy <name>', 'scheduling policy (default: balanced)')
    .option('--prefetch <name>', 'what is copied ahead of need (default: prefill)')
    .option('--cache-policy <name>', 'eviction from GPU memory (default: score)')
    .option('--kv-dtype <type>', 'KV cache: auto, f32, f16, bf16 or q8_0 (default: auto)')
    .option('--max-context <n>', 'longest sequence in tokens', numeric('maxContext'))
    .option('--isa <name>', 'force an instruction set, such as avx2 or scalar')
    .option('--no-pin', 'leave the placement of threads to the system');
}

/** Declares the generate options on a command. */
export function addGenerateFlags(command: Command): Command {
  return command
    .optionsGroup('Generation:')
    .option('--max-tokens <n>', 'tokens to generate at most (default: 256)', numeric('maxTokens'))
    .option('--temperature <x>', '0 is greedy', numeric('temperature'))
    .option('--top-k <n>', 'keep the n likeliest tokens', numeric('topK'))
    .option('--top-p <x>', 'keep the likeliest tokens that reach x', numeric('topP'))
    .option('--min-p <x>', 'drop tokens below x times the likeliest', numeric('minP'))
    .option('--repetition-penalty <x>', 'divide logits of seen tokens', numeric('repetitionPenalty'))
    .option('--seed <n>', 'seed of sampling', numeric('seed'))
    .option('--stop <text>', 'end at this text; may be repeated', collect)
    .option('--ignore-eos', 'go on after an end-of-text token')
    .optionsGroup('Output:')
    .option('--json', 'one JSON object on stdout, all else on stderr')
    .option('--trace <file>', "write the devices' timeline (Chrome trace)")
    .option('--record-routing <file>', 'write the experts of each token (JSON)');
}

/** Load options from flags; `model` is the demo model unless told otherwise. */
export function loadOptions(flags: LoadFlags): LoadOptions {
  return given({
    model: flags.model ?? demoModelFolder(),
    quantize: flags.quantize,
    repackCache: flags.repackCache,
    units: flags.units,
    threadsPerUnit: flags.threadsPerUnit,
    tpDegree: flags.tpDegree,
    gpu: flags.gpu,
    gpuThreads: flags.gpuThreads,
    vram: flags.vram,
    transferBandwidthGBs: flags.transferBandwidth,
    policy: flags.policy,
    prefetch: flags.prefetch,
    cachePolicy: flags.cachePolicy,
    kvDtype: flags.kvDtype,
    maxContext: flags.maxContext,
    isa: flags.isa,
    pinThreads: flags.pin ? undefined : false,
  });
}

/** Generate options from flags, without callbacks and signal. */
export function generateOptions(flags: GenerateFlags): GenerateOptions {
  return given({
    maxTokens: flags.maxTokens,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    minP: flags.minP,
    repetitionPenalty: flags.repetitionPenalty,
    seed: flags.seed,
    stop: flags.stop,
    ignoreEos: flags.ignoreEos,
    trace: flags.trace === undefined ? undefined : true,
    recordRouting: flags.recordRouting === undefined ? undefined : true,
  });
}

/** "1,2,3" as token ids. Throws OptionError. */
export function parseInputIds(text: string): number[] {
  return text.split(',').map((part, index) => {
    if (!/^\s*\d+\s*$/.test(part)) throw new OptionError(`--input-ids[${index}]`, 'a token id', part);
    return Number(part);
  });
}

/** Parses a number; whether it is in the option's domain is checked elsewhere. */
export function numeric(option: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (Number.isNaN(value)) throw new OptionError(option, 'a number', text);
    return value;
  };
}

/** Gathers an option that may be repeated. */
export function collect(text: string, earlier: string[] = []): string[] {
  return [...earlier, text];
}

/** Leaves out what was not given, so that defaults apply. */
function given<Options extends object>(options: Options): Options {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Options;
}
