/**
 * The package as built (dist/), typed by its source: worker threads run from there, never from TypeScript.
 * Used by the tests of this folder.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));

const builtUrl = new URL('../../dist/index.js', import.meta.url).href;
export const nearmoe = (await import(builtUrl)) as typeof import('../../src/index.js');

export const goldenFolder = (name: string) => path.join(here, '../golden/fixtures', name);

export type GoldenPrompt = { name: string; text: string; inputIds: number[]; greedyIds: number[] };

export function goldenPrompts(name: string): GoldenPrompt[] {
  const text = readFileSync(path.join(goldenFolder(name), 'golden.json'), 'utf8');
  return (JSON.parse(text) as { prompts: GoldenPrompt[] }).prompts;
}

/** Greedy request for a golden prompt. */
export const golden = { temperature: 0, maxTokens: 24, ignoreEos: true } as const;
