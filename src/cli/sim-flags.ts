/**
 * Declares the commands of the simulator and their options. Called by main.ts; the commands are in sim.ts and plan.ts.
 */
import type { Command } from 'commander';
import type { CliContext } from './context.js';
import { collect, numeric } from './flags.js';
import { type PlanFlags, planCommand } from './plan.js';
import { type SimFlags, simCommand } from './sim.js';

export function addSimCommand(
  program: Command,
  context: CliContext,
  finish: (status: number) => void,
): Command {
  return program
    .command('sim')
    .description('run the engine on simulated hardware: how long, how far from the best possible')
    .action(async (flags: SimFlags) => finish(await simCommand(flags, context)))
    .optionsGroup('What to run:')
    .option('--suite <name>', 'paper, ablation, sweep, edge, or several by commas')
    .option('--model <name>', 'model shape (default: qwen3-30b-a3b)')
    .option('--policy <id>', 'system to run; may be repeated (default: all)', collect)
    .option('--prompt-tokens <n>', 'tokens of the prompt (default: 512)', numeric('prompt-tokens'))
    .option('--tokens <n>', 'tokens of the answer (default: 512)', numeric('tokens'))
    .option('--batch <n>', 'requests that run together (default: 1)', numeric('batch'))
    .optionsGroup('Hardware:')
    .option('--gpu <id>', 'GPU (default: rtx5080)')
    .option('--vram <size>', "GPU memory in place of the GPU's own, such as 24GB")
    .option('--link <GB/s>', "host to GPU, in place of the GPU's own", numeric('link'))
    .option('--units <n>', 'NDP units (default: 4)', numeric('units'))
    .option('--unit-bandwidth <GB/s>', 'of each unit (default: 102.4)', numeric('unit-bandwidth'))
    .optionsGroup('Routing:')
    .option('--profile <id>', 'routing profile; may be repeated (default: all)', collect)
    .option('--routing <file>', 'recorded routing in place of synthetic one')
    .option('--correlation <x>', 'of prompt and answer (default: 0.6)', numeric('correlation'))
    .option('--recall <x>', 'of the lookahead (default: 0.67)', numeric('recall'))
    .option('--seed <n>', 'of routing and mistakes (default: 1)', numeric('seed'))
    .optionsGroup('Output:')
    .option('--json', 'one JSON object { cells } on stdout')
    .option('--out <dir>', 'write report.json, report.md and report.html')
    .option('--trace <file>', 'timeline of the last system at the first point (Chrome trace)')
    .option('--threads <n>', 'worker threads (default: one per core)', numeric('threads'));
}

export function addPlanCommand(
  program: Command,
  context: CliContext,
  finish: (status: number) => void,
): Command {
  return program
    .command('plan')
    .description('what a box would do with a model, before buying or downloading')
    .action((flags: PlanFlags) => finish(planCommand(flags, context)))
    .option('--model <name|dir>', 'model shape or checkpoint folder (default: qwen3-30b-a3b)')
    .option('--gpu <id>', 'GPU (default: rtx5080)')
    .option('--units <n>', 'NDP units (default: 4)', numeric('units'))
    .option('--unit-bandwidth <GB/s>', 'of each unit (default: 102.4)', numeric('unit-bandwidth'))
    .option('--prompt-tokens <n>', 'tokens of the prompt (default: 512)', numeric('prompt-tokens'))
    .option('--tokens <n>', 'tokens of the answer (default: 128)', numeric('tokens'))
    .option('--batch <n>', 'requests that run together (default: 1)', numeric('batch'))
    .option('--json', 'one JSON object on stdout');
}
