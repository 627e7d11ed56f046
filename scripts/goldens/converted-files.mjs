/**
 * `convert` held to independent readers: writes each checkpoint of a folder (scripts/goldens/peer_models.py makes them)
 * in several formats and reads the files back by gguf-py (converted_files.py: names, shapes, values beside the F32 file)
 * and, with --peer, by node-llama-cpp, which generates the same greedy tokens as nearmoe from the same file.
 *
 *     node scripts/goldens/converted-files.mjs MODELS_FOLDER [--python PYTHON] [--peer FOLDER_WITH_NODE_MODULES]
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = path.dirname(fileURLToPath(import.meta.url));
const FORMATS = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q5_1', 'q4_k', 'mxfp4'];
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { python: { type: 'string', default: 'python3' }, peer: { type: 'string' } },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error(
    'usage: node scripts/goldens/converted-files.mjs MODELS_FOLDER [--python PYTHON] [--peer FOLDER]',
  );
  process.exit(2);
}
const out = path.join(folder, 'converted');
mkdirSync(out, { recursive: true });
for (const name of readdirSync(folder)) {
  if (!existsSync(path.join(folder, name, 'config.json'))) continue;
  for (const format of FORMATS) {
    const file = path.join(out, `${name}-${format}.gguf`);
    const args = ['convert', path.join(folder, name), file, '--type', format, '--force'];
    execFileSync(process.execPath, [path.join(here, '../../infer.js'), ...args], { stdio: 'ignore' });
  }
  copyFileSync(path.join(folder, `${name}.json`), path.join(out, `${name}.json`));
}
execFileSync(values.python, [path.join(here, 'converted_files.py'), out], { stdio: 'inherit' });
if (values.peer !== undefined) {
  const args = [path.join(here, 'peer-parity.mjs'), out, '--peer', values.peer];
  execFileSync(process.execPath, args, { stdio: 'inherit' });
}
