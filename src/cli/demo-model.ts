/**
 * Where the demo model that ships with the package lies: the first model folder in models/. Called by the commands
 * for their default --model.
 */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { NearmoeError } from '../errors.js';

const folder = fileURLToPath(new URL('../../models', import.meta.url));

/** Folder of the demo model. Throws ERR_MODEL_NOT_FOUND where the package was shipped without it. */
export function demoModelFolder(): string {
  const names = existsSync(folder) ? readdirSync(folder).sort() : [];
  const found = names
    .map((name) => path.join(folder, name))
    .find((model) => existsSync(path.join(model, 'config.json')));
  if (found === undefined) {
    throw new NearmoeError(
      'ERR_MODEL_NOT_FOUND',
      `The demo model is not there: no model folder in ${folder}`,
      {
        hint: 'Name a model with --model DIR, a folder in the Hugging Face format.',
      },
    );
  }
  return found;
}
