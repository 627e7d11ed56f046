/**
 * What a user of the published package gets: the tarball installs into an empty folder without compiling
 * anything and runs. The prebuilt binary comes from `npm test`, which makes it before vitest starts.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = path.resolve(import.meta.dirname, '../..');
const prebuilds = path.join(root, 'node_modules/.cache/nearmoe-test/prebuilds');
const compilers = ['cmake', 'ninja', 'make', 'c++', 'g++', 'gcc', 'cc', 'clang++', 'node-gyp'];

const work = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-pack-'));
const stage = path.join(work, 'stage');
const user = path.join(work, 'user');
const compiled = path.join(work, 'compiled.log');

/** The environment of a machine on which every compiler fails and leaves a note. */
function environmentWithoutCompilers(): NodeJS.ProcessEnv {
  const folder = path.join(work, 'no-compilers');
  mkdirSync(folder);
  for (const name of compilers) {
    const file = path.join(folder, name);
    writeFileSync(file, `#!/bin/sh\necho "${name} $*" >> "${compiled}"\nexit 1\n`);
    chmodSync(file, 0o755);
  }
  return { ...process.env, PATH: `${folder}${path.delimiter}${process.env.PATH}` };
}

/** Copies what a release is made from: the files git knows, the built dist/ and the prebuilt binary. */
function stagePackage(): void {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  const wanted = listed.split('\n').filter((file) => file && !file.startsWith('test/'));
  for (const file of wanted.filter((name) => existsSync(path.join(root, name)))) {
    cpSync(path.join(root, file), path.join(stage, file));
  }
  cpSync(path.join(root, 'dist'), path.join(stage, 'dist'), { recursive: true });
  cpSync(prebuilds, path.join(stage, 'prebuilds'), { recursive: true });
}

describe.skipIf(!existsSync(prebuilds))(
  'the packed tarball (needs the prebuilt binary of `npm test`)',
  () => {
    let environment: NodeJS.ProcessEnv;

    beforeAll(() => {
      environment = environmentWithoutCompilers();
      stagePackage();
      mkdirSync(user);
      writeFileSync(path.join(user, 'package.json'), '{ "name": "user", "private": true, "type": "module" }');
      const packed = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', work], {
        cwd: stage,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      const [{ filename }] = JSON.parse(packed) as [{ filename: string }];
      execFileSync('npm', ['install', '--prefer-offline', path.join(work, filename)], {
        cwd: user,
        env: environment,
        stdio: ['ignore', 'ignore', 'pipe'],
      });
    }, 120_000);

    afterAll(() => rmSync(work, { recursive: true, force: true }));

    test('installs without calling a compiler', () => {
      expect(existsSync(compiled)).toBe(false);
      expect(existsSync(path.join(user, 'node_modules/nearmoe/build'))).toBe(false);
    });

    test('has what is needed to compile where no prebuilt binary fits', () => {
      for (const file of [
        'binding.gyp',
        'CMakeLists.txt',
        'scripts/build-addon.mjs',
        'native/napi/addon.cc',
      ]) {
        expect(existsSync(path.join(user, 'node_modules/nearmoe', file)), file).toBe(true);
      }
    });

    test('generates text', () => {
      const argv = ['--model', path.join(root, 'test/golden/fixtures/qwen3_moe'), '--input-ids', '1,2,3'];
      const run = spawnSync(
        path.join(user, 'node_modules/.bin/nearmoe'),
        [...argv, '--max-tokens', '8', '--ignore-eos', '--json'],
        { cwd: user, env: environment, encoding: 'utf8' },
      );
      expect(run).toMatchObject({ status: 0 });
      const result = JSON.parse(run.stdout);
      expect(result).toMatchObject({
        finishReason: 'length',
        usage: { promptTokens: 3, completionTokens: 8 },
      });
      expect(result.text.length).toBeGreaterThan(0);
    });

    test('brings the demo model along', () => {
      const run = spawnSync(
        path.join(user, 'node_modules/.bin/nearmoe'),
        ['Once upon a time', '--max-tokens', '8', '--json'],
        { cwd: user, env: environment, encoding: 'utf8' },
      );
      expect(run).toMatchObject({ status: 0 });
      expect(JSON.parse(run.stdout).usage.completionTokens).toBe(8);
    });

    test('is imported by its name', () => {
      const script =
        "import { loadModel, OptionError } from 'nearmoe'; await loadModel({ model: '', units: 1 })" +
        '.catch((error) => console.log(error instanceof OptionError, error.code));';
      const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
        cwd: user,
        encoding: 'utf8',
      });
      expect(run).toMatchObject({ status: 0, stdout: 'true ERR_OPTION\n' });
    });
  },
);
