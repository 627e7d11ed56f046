/** The texts that scripts/cuda/mutants.mjs breaks are still there: the mutants themselves run in `npm run test:gpu-mutants`. */
import { expect, it } from 'vitest';
import { mutate } from '../../../scripts/cuda/mutants.mjs';
import { mutants } from '../../../scripts/cuda/mutations.mjs';

it.each(mutants)('$name', (mutant) => {
  expect(mutate(mutant)).toContain(mutant.to);
});
