/**
 * The command line: declares the commands and their options and hands over to one file per command.
 * Called by infer.js. Computes nothing itself; with --json one object goes to stdout, all else to stderr.
 */
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { AbortedError, NearmoeError } from '../errors.js';
import { addBenchCommand, benchCommand } from './bench.js';
import { type ChatFlags, chatCommand } from './chat.js';
import { choicesText } from './choices.js';
import { type CliContext, processContext } from './context.js';
import { addConvertCommand, convertCommand } from './convert.js';
import { type DoctorFlags, doctorCommand } from './doctor.js';
import { addGenerateFlags, addLoadFlags } from './flags.js';
import { type InspectFlags, inspectCommand } from './inspect.js';
import { errorText } from './report.js';
import { errorJson } from './result-json.js';
import { type RunFlags, runCommand } from './run.js';
import { addServeCommand } from './serve.js';
import { addPlanCommand, addSimCommand } from './sim-flags.js';

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

/** Exit statuses beside 0: the work failed, the command line was wrong, Ctrl-C. */
const FAILED = 1;
const USAGE = 2;
const INTERRUPTED = 130;

/** Runs one command line (without node and script name); resolves to the exit status, never rejects. */
export async function runCli(
  argv: readonly string[],
  context: CliContext = processContext(),
): Promise<number> {
  let status = 0;
  const program = buildProgram(context, (outcome) => {
    status = outcome;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
    return status;
  } catch (error) {
    return reportFailure(error, argv.includes('--json'), context);
  }
}

function buildProgram(context: CliContext, finish: (status: number) => void): Command {
  const program = new Command('nearmoe')
    .description('Mixture-of-Experts inference on boxes whose GPU memory cannot hold all experts.')
    .version(version)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => context.stdout.write(text),
      writeErr: (text) => context.stderr.write(text),
      getOutHelpWidth: () => context.stdout.columns || 80,
      getErrHelpWidth: () => context.stderr.columns || 80,
    })
    .argument('[prompt...]', 'text to continue, or - to read it from stdin')
    .action(async (words: string[], flags: RunFlags) => finish(await runCommand(words, flags, context)));
  addLoadFlags(program)
    .optionsGroup('Input:')
    .option('--input-ids <ids>', 'token ids in place of a prompt, such as 1,2,3');
  addGenerateFlags(program)
    .option('--logits-out <file>', "write each step's logits (float32 little-endian)")
    .addHelpText('after', choicesText)
    .addHelpText('after', '\nExample: nearmoe "Once upon a time" --max-tokens 100');

  addChatCommand(program, context, finish);

  const inspect = program
    .command('inspect [model]')
    .description('tell what a model holds and weighs')
    .action(async (model: string | undefined, flags: InspectFlags) =>
      finish(await inspectCommand(model, flags, context)),
    );
  addLoadFlags(inspect)
    .optionsGroup('Output:')
    .option('--plan', 'load the model and tell what is placed where, and why')
    .option('--json', 'one JSON object on stdout');

  addServeCommand(program, context, finish);
  addBenchCommand(program, async (flags) => finish(await benchCommand(flags, context)));

  addFileAndMachineCommands(program, context, finish);
  addSimCommand(program, context, finish);
  addPlanCommand(program, context, finish);
  return program;
}

function addFileAndMachineCommands(
  program: Command,
  context: CliContext,
  finish: (status: number) => void,
): void {
  addConvertCommand(program, async (source, out, flags) =>
    finish(await convertCommand(source, out, flags, context)),
  );
  program
    .command('doctor')
    .description('tell what nearmoe finds on this machine')
    .option('--json', 'one JSON object on stdout')
    .action((flags: DoctorFlags) => finish(doctorCommand(version, flags, context)));
}

function addChatCommand(program: Command, context: CliContext, finish: (status: number) => void): void {
  const chat = program
    .command('chat [message...]')
    .description('talk to a model by its own chat template')
    .action(async (words: string[], flags: ChatFlags) => finish(await chatCommand(words, flags, context)));
  addGenerateFlags(addLoadFlags(chat)).option('--system <text>', 'system message');
}

function reportFailure(error: unknown, json: boolean, context: CliContext): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE;
  if (error instanceof AbortedError) {
    context.stderr.write('interrupted\n');
  } else {
    context.stderr.write(errorText(error));
  }
  if (json) context.stdout.write(`${JSON.stringify(errorJson(error))}\n`);
  if (error instanceof AbortedError) return INTERRUPTED;
  return error instanceof NearmoeError && error.code === 'ERR_OPTION' ? USAGE : FAILED;
}
