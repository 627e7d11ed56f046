/**
 * The checks of scripts/checks bite: each one is shown something that breaks its rule, and something that
 * keeps it. Works in temporary folders; the repository itself is checked by `npm test`.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkCorePath, codeLines } from '../../../scripts/checks/core-path.mjs';
import { checkLayers } from '../../../scripts/checks/layers.mjs';
import { checkOps } from '../../../scripts/checks/ops.mjs';
import { checkWeakSymbols, isaObjects } from '../../../scripts/checks/weak-symbols.mjs';
import { checkWords } from '../../../scripts/checks/words.mjs';

const repository = path.resolve(import.meta.dirname, '../../..');
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-checks-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function write(files: Record<string, string>): void {
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.join(folder, path.dirname(file)), { recursive: true });
    writeFileSync(path.join(folder, file), text);
  }
}

describe('layers', () => {
  test('imports that go down pass', () => {
    write({
      'src/cli/main.ts': "import { load } from '../llm.js';\nimport fs from 'node:fs';",
      'src/llm.ts': "export * from './engine/engine.js';\nimport type { A } from './errors.js';",
      'src/engine/engine.ts': "const x = await import('../schedule/scheduler.js');",
      'src/errors.ts': 'export {};',
    });
    expect(checkLayers(folder)).toEqual([]);
  });

  test.each([
    [
      'an import that goes up',
      'src/schedule/a.ts',
      "\nimport type { E } from '../engine/e.js';",
      /a\.ts:2: schedule imports engine/,
    ],
    [
      'a re-export that goes up',
      'src/errors.ts',
      "export { x } from './options.js';",
      /errors imports options/,
    ],
    [
      'a dynamic import that goes up',
      'src/model/m.ts',
      "void import('../cli/main.js');",
      /model imports cli/,
    ],
    [
      'a type import() that goes up',
      'src/model/m.ts',
      "type T = import('../llm.js').T;",
      /model imports llm/,
    ],
    ['a built-in in a pure part', 'src/placement/p.ts', "import fs from 'node:fs';", /placement\/ is pure/],
    ['a file outside src', 'src/model/m.ts', "import '../../test/x.js';", /outside src/],
    ['a folder nobody named', 'src/misc/m.ts', "import './n.js';", /'misc' is no part/],
  ])('%s is told', (_, file, text, message) => {
    write({ [file]: text });
    expect(checkLayers(folder)).toEqual([expect.stringMatching(message)]);
  });

  test('sim that reaches the binding by a longer way is told, a type import is not', () => {
    write({
      'src/sim/simulator.ts': "import { s } from '../device/simulated.js';",
      'src/device/simulated.ts': "import { n } from './native.js';",
      'src/device/native.ts': "import { b } from '../binding.js';",
    });
    expect(checkLayers(folder)).toEqual([
      'src/sim/simulator.ts reaches the binding: sim/simulator -> device/simulated -> device/native -> binding',
    ]);
    write({ 'src/device/simulated.ts': "import type { n } from './native.js';" });
    expect(checkLayers(folder)).toEqual([]);
  });
});

describe('core path', () => {
  test('counts lines that hold code, not comments and blanks', () => {
    const text = '/** A docstring\n * of two lines. */\n\nconst a = 1; // one\n// two\nconst b = `x\ny`;\n';
    expect(codeLines(text)).toBe(3);
  });

  test('tells too many lines and a missing file', () => {
    write({ 'src/a.ts': 'const a = 1;\nconst b = 2;\n' });
    expect(checkCorePath(folder, ['src/a.ts'], 3).problems).toEqual([]);
    expect(checkCorePath(folder, ['src/a.ts'], 2).problems).toEqual([
      'expected fewer than 2 lines of code, got 2',
    ]);
    expect(checkCorePath(folder, ['src/b.ts'], 2).problems).toEqual([
      expect.stringMatching(/does not exist/),
    ]);
  });
});

describe('ops', () => {
  const table = 'struct OpTable {\n  void (*rms_norm)(int x);\n  void (*rope)(float* x);\n};\n';

  test('tells an op that one folder lacks or adds', () => {
    write({
      'kernels/ops.h': table,
      'kernels/reference/rms_norm.cc': '',
      'kernels/reference/rope.cc': '',
      'kernels/reference/table.cc': '',
      'kernels/cpu/rms_norm.inl.h': '',
      'kernels/cpu/softmax.inl.h': '',
    });
    expect(checkOps(folder)).toEqual({
      ops: ['rms_norm', 'rope'],
      problems: [
        'op rope of kernels/ops.h is missing in kernels/cpu',
        'kernels/cpu has an op softmax that kernels/ops.h lacks',
      ],
    });
  });

  test('leaves out a folder that has no op yet', () => {
    write({ 'kernels/ops.h': table, 'kernels/cpu/vec.h': '' });
    expect(checkOps(folder).problems).toEqual([]);
  });
});

describe('weak symbols', () => {
  test('tells an inline function that was emitted, lets a static one pass', () => {
    const objects = 'CMakeFiles/nearmoe_isa_avx2.dir';
    write({
      'weak.cc': 'inline int twice(int x) { return 2 * x; } int (*keep)(int) = twice;',
      'strong.cc': 'static int twice(int x) { return 2 * x; } int (*keep)(int) = twice;',
      [`${objects}/note.txt`]: '',
    });
    for (const name of ['weak', 'strong']) {
      execFileSync('c++', ['-c', `${name}.cc`, '-o', `${objects}/${name}.cc.o`], { cwd: folder });
    }
    const found = isaObjects(folder);
    expect(found.map((file) => path.basename(file)).sort()).toEqual(['strong.cc.o', 'weak.cc.o']);
    expect(checkWeakSymbols(found)).toEqual([
      expect.stringMatching(/weak\.cc\.o defines the weak symbol twice\(int\)/),
    ]);
  });
});

describe('words', () => {
  test.each([
    ['src/a.ts', '// TODO mend', /TODO/],
    ['src/a.ts', '// @ts-ignore', /type check/],
    ['test/a.test.ts', "test.only('x', run);", /other tests/],
    ['src/a.ts', "open('/home/me/x')", /one developer/],
    ['src/string-utils.ts', '', /name does not say/],
  ])('%s with %j is told', (file, text, message) => {
    expect(checkWords(file, text)).toEqual([expect.stringMatching(message)]);
  });

  test('ordinary text passes', () => {
    expect(checkWords('src/a.ts', "// TODO(#12): later\nconst uncommon = '/v1/home';")).toEqual([]);
  });
});

describe('Biome rules', () => {
  /** Lints one folder with the repository's rules. */
  function lint(files: Record<string, string>): string {
    write({ ...files, 'biome.jsonc': readFileSync(path.join(repository, 'biome.jsonc'), 'utf8') });
    const biome = path.join(repository, 'node_modules/.bin/biome');
    const run = spawnSync(biome, ['lint', '--colors=off', '--vcs-enabled=false', '.'], {
      cwd: folder,
      encoding: 'utf8',
    });
    return run.stdout + run.stderr;
  }

  test('a file of src has fewer than 300 lines', () => {
    const lines = (count: number) => 'void 0;\n'.repeat(count);
    expect(lint({ 'src/llm.ts': lines(300) })).toContain('noExcessiveLinesPerFile');
    expect(lint({ 'src/llm.ts': lines(299) })).toContain('No fixes applied');
    expect(lint({ 'test/llm.ts': lines(300) })).toContain('No fixes applied');
  });

  test('a function of src has fewer than 50 lines', () => {
    const lines = (count: number) => `export function f() {\n${'  void 0;\n'.repeat(count - 2)}}\n`;
    expect(lint({ 'src/llm.ts': lines(50) })).toContain('noExcessiveLinesPerFunction');
    expect(lint({ 'src/llm.ts': lines(49) })).toContain('No fixes applied');
  });

  test('files do not import each other in a ring', () => {
    const a = "import { b } from './b.js';\nexport const a = () => b;\n";
    expect(lint({ 'src/a.ts': a, 'src/b.ts': 'export const b = 1;\n' })).toContain('No fixes applied');
    expect(lint({ 'src/b.ts': "import { a } from './a.js';\nexport const b = () => a;\n" })).toContain(
      'noImportCycles',
    );
  });

  test('any and non-null assertions are refused', () => {
    expect(lint({ 'src/a.ts': 'export const a = (x: any) => x;\n' })).toContain('noExplicitAny');
    expect(lint({ 'src/a.ts': 'export const a = (x?: number) => x!;\n' })).toContain('noNonNullAssertion');
  });
});
