/**
 * The path from a prompt to its tokens stays under 1,500 lines of TypeScript: the files that "One prompt's way
 * through the files" of docs/architecture.md names, listed here. Counted are lines that hold code; docstrings,
 * comments and blank lines are free.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { isCommand, report, root } from './report.mjs';

const limit = 1500;

/**
 * Files of the path, in the order in which a prompt meets them; docs/architecture.md draws the same way.
 * @type {string[]}
 */
const corePath = [
  'src/llm.ts',
  'src/engine/worker.ts',
  'src/engine/engine.ts',
  'src/engine/request.ts',
  'src/model/tokenizer.ts',
  'src/engine/sequence.ts',
  'src/engine/batcher.ts',
  'src/engine/forward.ts',
  'src/schedule/planner.ts',
  'src/schedule/balanced.ts',
  'src/schedule/prefetcher.ts',
  'src/engine/sampler.ts',
  'src/model/decode-stream.ts',
];

/**
 * @param {string} text TypeScript source
 * @returns {number} lines that hold at least one token of code
 */
export function codeLines(text) {
  const source = ts.createSourceFile('count.ts', text, ts.ScriptTarget.Latest, false);
  const lines = new Set();
  /** @param {ts.Node} node */
  const visit = (node) => {
    const children = node.getChildren(source).filter((child) => !ts.isJSDoc(child));
    if (children.length === 0 && node.getWidth(source) > 0) {
      const first = source.getLineAndCharacterOfPosition(node.getStart(source)).line;
      const last = source.getLineAndCharacterOfPosition(node.getEnd()).line;
      for (let line = first; line <= last; line++) lines.add(line);
    }
    for (const child of children) visit(child);
  };
  visit(source);
  return lines.size;
}

/**
 * @param {string} folder repository root
 * @param {string[]} files paths from the root
 * @param {number} maxLines
 * @returns {{ problems: string[], lines: number }}
 */
export function checkCorePath(folder, files = corePath, maxLines = limit) {
  const missing = files.filter((file) => !existsSync(path.join(folder, file)));
  const present = files.filter((file) => !missing.includes(file));
  const lines = present.reduce(
    (sum, file) => sum + codeLines(readFileSync(path.join(folder, file), 'utf8')),
    0,
  );
  const problems = missing.map((file) => `${file} is named as part of the path and does not exist`);
  if (lines >= maxLines) problems.push(`expected fewer than ${maxLines} lines of code, got ${lines}`);
  return { problems, lines };
}

if (isCommand(import.meta.url)) {
  const { problems, lines } = checkCorePath(root);
  report('core path', problems, `${lines} of ${limit} lines of code in ${corePath.length} files`);
}
