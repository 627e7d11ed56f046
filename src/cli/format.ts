/**
 * Numbers and text as people read them on a terminal: bytes, times, counts, colours. Called by the commands.
 */
import type { CliContext, TextOutput } from './context.js';

const DECIMAL_UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

/** "12.3 MB": decimal units, three significant digits. */
export function formatBytes(sizeBytes: number): string {
  let value = sizeBytes;
  let unit = 0;
  while (value >= 999.5 && unit < DECIMAL_UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : significant(value)} ${DECIMAL_UNITS[unit]}`;
}

/** "950 us", "12.3 ms", "4.56 s", "2 min 5 s". */
export function formatMs(timeMs: number): string {
  if (timeMs < 0.9995) return `${Math.round(timeMs * 1000)} us`;
  if (timeMs < 999.5) return `${significant(timeMs)} ms`;
  if (timeMs < 99_950) return `${significant(timeMs / 1000)} s`;
  const seconds = Math.round(timeMs / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** "1,234,567" */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}

/** "406 tokens/s", "9.87 tokens/s" */
export function formatRate(perSecond: number): string {
  return `${perSecond >= 999.5 ? formatCount(perSecond) : significant(perSecond)} tokens/s`;
}

/** "93.2%" */
export function formatShare(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}

/** Three significant digits without an exponent, for values from 0 to 999. */
function significant(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

/** Dims text on a terminal that shows colours, else returns it as it is. */
export function dim(text: string, stream: TextOutput, env: CliContext['env']): string {
  return stream.isTTY && !env.NO_COLOR && env.TERM !== 'dumb' ? `\x1b[2m${text}\x1b[22m` : text;
}

/** Breaks a sentence at spaces into lines of at most `width`. */
export function wrap(text: string, width: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = lines[lines.length - 1] ?? '';
    if (line !== '' && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}
