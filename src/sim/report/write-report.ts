/**
 * Writes a report: cells as JSON, tables as Markdown, tables and charts as one self-contained HTML page. Called by
 * `sim --out`. The page needs no network, no script and no colour.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { OptionError } from '../../errors.js';
import type { Cell } from '../point.js';
import { sections } from './charts.js';
import { type Summary, summarise, type Table } from './summary.js';
import { escapeText } from './svg.js';

/** Returns the files written. Throws OptionError where the folder cannot be written. */
export function writeReport(folder: string, cells: readonly Cell[]): string[] {
  const summary = summarise(cells);
  const files = {
    'report.json': `${JSON.stringify({ cells })}\n`,
    'report.md': markdown(summary),
    'report.html': html(summary, cells),
  };
  try {
    mkdirSync(folder, { recursive: true });
    return Object.entries(files).map(([name, text]) => {
      const file = path.join(folder, name);
      writeFileSync(file, text);
      return file;
    });
  } catch (cause) {
    throw new OptionError('out', 'a folder that can be written', folder, { cause });
  }
}

export function markdown({ title, lines, tables }: Summary): string {
  const table = ({ heading, columns, rows }: Table) =>
    [
      `## ${heading}`,
      '',
      `| ${columns.join(' | ')} |`,
      `|${columns.map(() => '---').join('|')}|`,
      ...rows.map((row) => `| ${row.join(' | ')} |`),
      '',
    ].join('\n');
  return [`# ${title}`, '', ...lines.map((line) => `- ${line}`), '', ...tables.map(table)].join('\n');
}

export function html({ title, lines, tables }: Summary, cells: readonly Cell[]): string {
  const charts = sections(cells).map(
    ({ heading, text, pictures }) =>
      `<section><h2>${escapeText(heading)}</h2><p>${escapeText(text)}</p><div class="charts">` +
      `${pictures.map(({ svg }) => `<figure>${svg}</figure>`).join('\n')}</div></section>`,
  );
  return [
    '<!doctype html><html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${escapeText(title)}</title><style>${STYLE}</style></head><body><main>`,
    `<h1>${escapeText(title)}</h1><ul>${lines.map((line) => `<li>${escapeText(line)}</li>`).join('')}</ul>`,
    ...charts,
    ...tables.map(htmlTable),
    '</main></body></html>\n',
  ].join('\n');
}

function htmlTable({ heading, columns, rows }: Table): string {
  const row = (name: string, entries: readonly string[]) =>
    `<tr>${entries.map((entry) => `<${name}>${escapeText(entry)}</${name}>`).join('')}</tr>`;
  const body = `<table><thead>${row('th', columns)}</thead><tbody>${rows.map((entries) => row('td', entries)).join('\n')}</tbody></table>`;
  const open = rows.length <= 20 ? ' open' : '';
  return `<details${open}><summary>${escapeText(heading)}</summary><div class="table">${body}</div></details>`;
}

const STYLE = [
  'body{margin:0;font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff}',
  'main{max-width:1100px;margin:0 auto;padding:24px 16px}',
  'h1{font-size:24px}h2{font-size:19px;margin-top:32px}',
  '.charts{display:flex;flex-wrap:wrap;gap:16px}figure{margin:0;max-width:100%;overflow-x:auto}',
  '.table{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}',
  'th,td{border-bottom:1px solid #ddd;padding:3px 9px;text-align:left;white-space:nowrap}',
  'summary{cursor:pointer;font-weight:600;margin:18px 0 6px}',
].join('');
