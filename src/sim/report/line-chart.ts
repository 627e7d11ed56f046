/**
 * Lines over a few values of one knob, told apart by dash, marker and colour. Used by charts.ts; knows nothing of cells.
 */
import { valueAxis } from './bar-chart.js';
import {
  element,
  type Look,
  legend,
  lineFrom,
  type Picture,
  picture,
  scale,
  textAt,
  ticks,
  tickText,
} from './svg.js';

export type LineChart = {
  title: string;
  valueAxis: string;
  /** Of the knob, with its unit. */
  knobAxis: string;
  /** Texts under the points; points are evenly spaced. */
  knobs: readonly string[];
  series: readonly { name: string; look: Look; marker: Marker; values: readonly (number | undefined)[] }[];
  width: number;
};

export type Marker = 'circle' | 'square' | 'triangle' | 'diamond';

const MARGIN = { left: 56, right: 16, top: 30, bottom: 46 };
const PLOT_HEIGHT = 170;

export function lineChart(chart: LineChart): Picture {
  const { width, series, knobs } = chart;
  const values = series.flatMap((entry) => entry.values.filter((value) => value !== undefined));
  const steps = ticks(Math.max(...values));
  const bottomY = MARGIN.top + PLOT_HEIGHT;
  const y = scale(0, steps.at(-1) ?? 1, bottomY, MARGIN.top);
  const right = width - MARGIN.right;
  const x = scale(-0.5, knobs.length - 0.5, MARGIN.left, right);
  const parts = [
    textAt(MARGIN.left, 16, chart.title, { 'font-weight': 600 }),
    ...valueAxis(chart.valueAxis, steps, y, MARGIN.left, right),
    lineFrom(MARGIN.left, bottomY, right, bottomY),
    textAt((MARGIN.left + right) / 2, bottomY + 34, chart.knobAxis, { 'text-anchor': 'middle' }),
    ...knobs.map((knob, i) => textAt(x(i), bottomY + 16, knob, { 'text-anchor': 'middle' })),
  ];
  for (const { name, look, marker, values: own } of series) {
    const points = own.flatMap((value, i) =>
      value === undefined ? [] : [{ x: x(i), y: y(value), value, i }],
    );
    parts.push(
      element('polyline', {
        points: points.map((point) => `${point.x.toFixed(1)},${point.y.toFixed(1)}`).join(' '),
        fill: 'none',
        stroke: look.colour,
        'stroke-width': 2,
        'stroke-dasharray': look.dash === '' ? undefined : look.dash,
      }),
      ...points.map((point) =>
        markerAt(
          point.x,
          point.y,
          marker,
          look,
          `${name}, ${knobs[point.i] ?? ''}: ${tickText(point.value)}`,
        ),
      ),
    );
  }
  const key = legend(
    series.map(({ name, look }) => ({ name, look, kind: 'line' as const })),
    MARGIN.left,
    bottomY + MARGIN.bottom,
    right - MARGIN.left,
  );
  return picture(width, bottomY + MARGIN.bottom + key.height, chart.title, [...parts, ...key.parts]);
}

function markerAt(x: number, y: number, marker: Marker, { colour }: Look, title: string): string {
  const name = element('title', {}, title);
  const paint = { fill: colour, stroke: '#fff', 'stroke-width': 1 };
  if (marker === 'circle') return element('circle', { cx: x, cy: y, r: 4.5, ...paint }, name);
  const corners = {
    square: [-4, -4, 4, -4, 4, 4, -4, 4],
    triangle: [0, -5, 5, 4, -5, 4],
    diamond: [0, -5.5, 5.5, 0, 0, 5.5, -5.5, 0],
  }[marker];
  const points = corners.map((offset, i) => (offset + (i % 2 === 0 ? x : y)).toFixed(1)).join(' ');
  return element('polygon', { points, ...paint }, name);
}
