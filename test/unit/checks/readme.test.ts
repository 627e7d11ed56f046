/**
 * What README promises about itself: its length, its commands, its links, the options it names.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { runCli } from '../../../src/cli/main.js';
import { fakeContext } from '../cli/fake-model.js';

const root = path.resolve(import.meta.dirname, '../../..');
const readme = readFileSync(path.join(root, 'README.md'), 'utf8');

test('has fewer than 150 lines', () => {
  expect(readme.split('\n').length).toBeLessThan(150);
});

test('CI runs exactly the test command it shows', () => {
  const ci = readFileSync(path.join(root, '.ci/run'), 'utf8').trimEnd().split('\n');
  expect(ci.at(-1)).toBe('npm ci && npm test');
  expect(readme).toContain('npm ci && npm test');
});

test('its links lead to files', () => {
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map((match) => `${match[1]}`);
  expect(links.filter((link) => !existsSync(path.join(root, link)))).toEqual([]);
});

test('every option it names exists', async () => {
  const { context, out } = fakeContext();
  for (const command of [[], ['inspect'], ['bench'], ['convert']])
    await runCli([...command, '--help'], context);
  // Scripts of bench/ name their options in their head comments.
  const scripts = [...readme.matchAll(/bench\/[\w-]+\.mjs/g)].map(([file]) =>
    readFileSync(path.join(root, file), 'utf8'),
  );
  const known = [out(), ...scripts].join('\n');
  const named = new Set([...readme.matchAll(/(?<![\w-])--[a-z][a-z-]+/g)].map((match) => match[0]));
  expect([...named].filter((option) => option !== '--help' && !known.includes(option))).toEqual([]);
});
