/**
 * Where the demo model that ships with the package lies. Called by the commands for their default --model.
 */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { NearmoeError } from '../errors.js';

const folder = fileURLToPath(new URL('../../models/demo/', import.meta.url));

/** Folder of the demo model. Throws ERR_MODEL_NOT_FOUND where the package was shipped without it. */
export function demoModelFolder(): string {
  if (!existsSync(folder)) {
    throw new NearmoeError('ERR_MODEL_NOT_FOUND', `The demo model is not there: ${folder} is missing`, {
      hint: 'Name a model with --model DIR, a folder in the Hugging Face format.',
    });
  }
  return folder;
}
