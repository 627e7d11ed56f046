/**
 * SVG text from numbers: elements, scales, ticks, and fills that differ without colour. Used by the charts of this
 * folder; draws no chart itself.
 */

/** A chart's finished picture, with the sentence that screen readers are given. */
export type Picture = { svg: string; width: number; height: number };

/** How a series looks: colour for those who see it, pattern and marker for all. */
export type Look = { colour: string; pattern: 'solid' | 'hatch' | 'dots' | 'open' | 'cross'; dash: string };

export const LOOKS: Readonly<
  Record<'first' | 'second' | 'third' | 'fourth' | 'fifth' | 'sixth' | 'quiet', Look>
> = {
  first: { colour: '#14507e', pattern: 'solid', dash: '' },
  second: { colour: '#2f86c1', pattern: 'hatch', dash: '7 3' },
  third: { colour: '#7fb8dd', pattern: 'dots', dash: '2 3' },
  fourth: { colour: '#b4570e', pattern: 'cross', dash: '10 3 2 3' },
  fifth: { colour: '#6b6b6b', pattern: 'hatch', dash: '1 3' },
  sixth: { colour: '#6b6b6b', pattern: 'cross', dash: '4 2' },
  quiet: { colour: '#8a8a8a', pattern: 'open', dash: '4 4' },
};

type Attributes = Readonly<Record<string, string | number | undefined>>;

export function element(name: string, attributes: Attributes, ...children: readonly string[]): string {
  const text = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(
      ([key, value]) => ` ${key}="${typeof value === 'number' ? rounded(value) : escapeText(value ?? '')}"`,
    )
    .join('');
  return children.length === 0 ? `<${name}${text}/>` : `<${name}${text}>${children.join('')}</${name}>`;
}

export function textAt(x: number, y: number, text: string, attributes: Attributes = {}): string {
  return element('text', { x, y, ...attributes }, escapeText(text));
}

export function lineFrom(
  x1: number,
  y1: number,
  x2: number,
  y2: number,
  attributes: Attributes = {},
): string {
  return element('line', { x1, y1, x2, y2, stroke: '#333', ...attributes });
}

export function escapeText(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** The whole picture. `title` is read out in place of it. */
export function picture(width: number, height: number, title: string, parts: readonly string[]): Picture {
  const svg = element(
    'svg',
    {
      xmlns: 'http://www.w3.org/2000/svg',
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: 'img',
      'aria-label': title,
      'font-family': 'system-ui, sans-serif',
      'font-size': 12,
      fill: '#222',
    },
    patternDefinitions(),
    ...parts,
  );
  return { svg, width, height };
}

/** Linear from [low, high] to [from, to]. */
export function scale(low: number, high: number, from: number, to: number): (value: number) => number {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

/** Round values from 0 to at least `high`, about `count` of them. */
export function ticks(high: number, count = 5): number[] {
  if (!(high > 0)) return [0, 1];
  const raw = high / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw * 0.999) ?? 10) * power;
  const found: number[] = [];
  for (let i = 0; (i - 1) * step < high * 0.999 || i < 2; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** "0.5", "12", "1,500": as short as a tick may be. */
export function tickText(value: number): string {
  return value >= 1000 ? value.toLocaleString('en-US') : String(Number(value.toPrecision(3)));
}

/** Fill of a look; the patterns are defined once a picture. */
export function fillOf({ colour, pattern }: Look): string {
  return pattern === 'solid' ? colour : `url(#${patternId(pattern, colour)})`;
}

/** A bar with its outline, so that light patterns have an edge. */
export function bar(x: number, y: number, width: number, height: number, look: Look, title: string): string {
  const shape = {
    x,
    y,
    width: Math.max(0, width),
    height: Math.max(0, height),
    fill: look.pattern === 'open' ? '#fff' : fillOf(look),
    stroke: look.colour,
    'stroke-width': 1,
    'stroke-dasharray': look.pattern === 'open' ? '3 2' : undefined,
  };
  return element('rect', shape, element('title', {}, escapeText(title)));
}

/** A legend entry for each series, left to right, wrapped at `width`. Returns its height. */
export function legend(
  entries: readonly { name: string; look: Look; kind?: 'bar' | 'line' }[],
  x: number,
  y: number,
  width: number,
): { parts: string[]; height: number } {
  const parts: string[] = [];
  let [left, top] = [x, y];
  for (const { name, look, kind } of entries) {
    const size = 26 + 6.6 * name.length + 18;
    if (left + size > x + width && left > x) {
      left = x;
      top += 18;
    }
    parts.push(
      kind === 'line'
        ? lineFrom(left, top + 5, left + 20, top + 5, {
            stroke: look.colour,
            'stroke-width': 2,
            'stroke-dasharray': look.dash === '' ? undefined : look.dash,
          })
        : bar(left, top, 20, 10, look, name),
      textAt(left + 26, top + 9, name),
    );
    left += size;
  }
  return { parts, height: top - y + 18 };
}

function patternId(pattern: Look['pattern'], colour: string): string {
  return `${pattern}-${colour.slice(1)}`;
}

function patternDefinitions(): string {
  const looks = Object.values(LOOKS).filter(({ pattern }) => pattern !== 'solid' && pattern !== 'open');
  return element('defs', {}, ...looks.map(({ colour, pattern }) => patternDefinition(pattern, colour)));
}

function patternDefinition(pattern: Look['pattern'], colour: string): string {
  const size = { id: patternId(pattern, colour), width: 6, height: 6, patternUnits: 'userSpaceOnUse' };
  const ground = element('rect', { width: 6, height: 6, fill: '#fff' });
  const stroke = { stroke: colour, 'stroke-width': 2 };
  if (pattern === 'dots') {
    return element('pattern', size, ground, element('circle', { cx: 3, cy: 3, r: 1.8, fill: colour }));
  }
  const turned = { ...size, patternTransform: 'rotate(45)' };
  const across = lineFrom(0, 3, 6, 3, stroke);
  return pattern === 'hatch'
    ? element('pattern', turned, ground, element('rect', { width: 6, height: 3.4, fill: colour }))
    : element('pattern', turned, ground, across, lineFrom(3, 0, 3, 6, stroke));
}

/** Tenths of a pixel are enough. */
function rounded(value: number): string {
  return String(Math.round(value * 10) / 10);
}
