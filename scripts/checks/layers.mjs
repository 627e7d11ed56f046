/**
 * Imports in src/ go only down (docs/architecture.md): cli, server -> llm -> engine -> {device, schedule,
 * placement, model, trace} -> binding. schedule/ and placement/ are pure, sim/ never reaches the binding.
 * Import cycles between files are Biome's rule (noImportCycles); this script knows the folders.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import ts from 'typescript';
import { isCommand, report, root } from './report.mjs';

const base = ['options', 'errors'];
const parts = ['schedule', 'placement', 'model', 'trace', 'grammar', 'answer', ...base];

/**
 * What each part of src/ may import; a part is a folder or a file of src/ without its extension.
 * @type {Record<string, string[]>}
 */
const allowed = {
  index: ['llm', 'server', 'sim', 'engine', 'device', 'binding', ...parts],
  adapters: ['llm', 'engine', 'grammar', ...base],
  cli: ['index', 'server', 'llm', 'sim', 'engine', 'device', 'binding', ...parts],
  server: ['llm', 'engine', 'device', 'binding', ...parts],
  llm: ['engine', 'device', 'binding', ...parts],
  sim: ['engine', 'device', ...parts],
  engine: ['device', 'binding', ...parts],
  device: ['binding', 'schedule', 'placement', 'model', ...base],
  schedule: ['placement', ...base],
  placement: ['model', ...base],
  model: ['binding', ...base],
  answer: ['model', ...base],
  trace: ['device', ...base],
  binding: base,
  grammar: ['errors'],
  options: ['errors', 'grammar'],
  errors: [],
};
const pure = ['schedule', 'placement', 'grammar'];

/**
 * @typedef {{ from: string, to: string, inside: boolean, typeOnly: boolean, line: number }} Import
 * `to` is a path relative to src/ without extension where `inside` holds, else a module's name.
 */

/**
 * @param {string} sourceRoot folder that holds src/
 * @returns {Import[]} every import, re-export and import() of src/
 */
export function readImports(sourceRoot) {
  const src = path.join(sourceRoot, 'src');
  const files = existsSync(src) ? readdirSync(src, { recursive: true, encoding: 'utf8' }) : [];
  return files
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) => importsOf(file.split(path.sep).join('/'), readFileSync(path.join(src, file), 'utf8')));
}

/**
 * @param {string} file path inside src/
 * @param {string} text
 * @returns {Import[]}
 */
function importsOf(file, text) {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  /** @type {Import[]} */
  const found = [];
  /** @param {ts.Node} node */
  const visit = (node) => {
    let name;
    let typeOnly = false;
    if (ts.isImportDeclaration(node)) {
      name = node.moduleSpecifier;
      typeOnly = node.importClause?.isTypeOnly ?? false;
    } else if (ts.isExportDeclaration(node) && node.moduleSpecifier) {
      name = node.moduleSpecifier;
      typeOnly = node.isTypeOnly;
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      name = node.arguments[0];
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      name = node.argument.literal;
      typeOnly = true;
    }
    if (name && ts.isStringLiteral(name)) {
      const inside = name.text.startsWith('.');
      const to = inside
        ? path.posix.join(path.posix.dirname(file), name.text).replace(/\.(js|ts|json)$/, '')
        : name.text;
      const line = source.getLineAndCharacterOfPosition(name.getStart()).line + 1;
      found.push({ from: file, to, inside, typeOnly, line });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** @param {string} file path inside src/ */
function partOf(file) {
  return (file.split('/')[0] ?? file).replace(/\.ts$/, '');
}

/**
 * @param {string} sourceRoot folder that holds src/
 * @returns {string[]} problems
 */
export function checkLayers(sourceRoot) {
  const imports = readImports(sourceRoot);
  const problems = [];
  for (const { from, to, inside, line } of imports) {
    const part = partOf(from);
    const may = allowed[part];
    if (!may) {
      problems.push(`src/${from}: '${part}' is no part of src/ that docs/architecture.md names`);
    } else if (!inside) {
      const builtin = to.startsWith('node:') || builtinModules.includes(to);
      if (pure.includes(part) && builtin)
        problems.push(`src/${from}:${line}: ${part}/ is pure, it imports ${to}`);
    } else if (to.startsWith('../')) {
      if (to !== '../package') problems.push(`src/${from}:${line}: imports ${to}, outside src/`);
    } else if (partOf(to) !== part && !may.includes(partOf(to))) {
      problems.push(`src/${from}:${line}: ${part} imports ${partOf(to)} (${to}), which is not below it`);
    }
  }
  return [...new Set([...problems, ...simulatorPaths(imports)])];
}

/**
 * @param {Import[]} imports
 * @returns {string[]} one problem for each file of sim/ that reaches the binding by imports that run
 */
function simulatorPaths(imports) {
  /** @type {Map<string, string[]>} */
  const next = new Map();
  for (const { from, to, inside, typeOnly } of imports) {
    if (!typeOnly && inside) next.set(cut(from), [...(next.get(cut(from)) ?? []), to]);
  }
  const problems = [];
  for (const start of next.keys()) {
    if (partOf(start) !== 'sim') continue;
    /** @type {Map<string, string>} */
    const cameFrom = new Map([[start, '']]);
    for (const file of cameFrom.keys()) {
      for (const to of next.get(file) ?? []) if (!cameFrom.has(to)) cameFrom.set(to, file);
    }
    if (cameFrom.has('binding')) problems.push(`src/${start}.ts reaches the binding: ${trail(cameFrom)}`);
  }
  return problems;
}

/** @param {Map<string, string>} cameFrom */
function trail(cameFrom) {
  const steps = [];
  for (let at = 'binding'; at; at = cameFrom.get(at) ?? '') steps.unshift(at);
  return steps.join(' -> ');
}

/** @param {string} file */
function cut(file) {
  return file.replace(/\.ts$/, '');
}

if (isCommand(import.meta.url)) {
  report('layers', checkLayers(root), `${readImports(root).length} imports go down`);
}
