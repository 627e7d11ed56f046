/**
 * Grouped bars with whiskers, each with a larger open bar behind it (what would be possible), and stacked horizontal
 * bars. Used by charts.ts; knows nothing of cells.
 */
import {
  bar,
  element,
  LOOKS,
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

export type BarGroup = {
  name: string;
  bars: readonly { value: number; low?: number; high?: number; behind?: number; title: string }[];
};

export type BarChart = {
  title: string;
  /** Of the value axis and of the groups' axis, with units. */
  valueAxis: string;
  groupAxis: string;
  series: readonly { name: string; look: Look }[];
  /** Name of the open bars behind the others. */
  behind?: string;
  groups: readonly BarGroup[];
  /** A value that a dashed line across the chart marks. */
  mark?: { value: number; name: string };
  width: number;
  /** Largest value of the axis, for charts that are compared. */
  most?: number;
};

const MARGIN = { left: 52, right: 12, top: 30, bottom: 46 };
const PLOT_HEIGHT = 190;

export function barChart(chart: BarChart): Picture {
  const { width, groups, series } = chart;
  const largest = Math.max(
    ...groups.flatMap(({ bars }) => bars.flatMap(({ value, high = 0, behind = 0 }) => [value, high, behind])),
  );
  const steps = ticks(chart.most ?? largest);
  const top = steps.at(-1) ?? 1;
  const bottomY = MARGIN.top + PLOT_HEIGHT;
  const y = scale(0, top, bottomY, MARGIN.top);
  const plotWidth = width - MARGIN.left - MARGIN.right;
  const groupWidth = plotWidth / groups.length;
  const barWidth = Math.min(30, (groupWidth * 0.78) / Math.max(1, series.length));
  const parts = [
    textAt(MARGIN.left, 16, chart.title, { 'font-weight': 600 }),
    ...valueAxis(chart.valueAxis, steps, y, MARGIN.left, width - MARGIN.right),
  ];
  groups.forEach((group, index) => {
    const centre = MARGIN.left + (index + 0.5) * groupWidth;
    const left = centre - (barWidth * group.bars.length) / 2;
    group.bars.forEach((entry, i) => {
      const look = series[i]?.look ?? LOOKS.first;
      parts.push(...barWithWhisker(entry, left + i * barWidth, barWidth - 3, y, bottomY, look));
    });
    parts.push(textAt(centre, bottomY + 16, group.name, { 'text-anchor': 'middle' }));
  });
  if (chart.mark) {
    const at = y(chart.mark.value);
    parts.push(
      lineFrom(MARGIN.left, at, width - MARGIN.right, at, { stroke: '#000', 'stroke-dasharray': '6 3' }),
      textAt(MARGIN.left + 3, at - 3, chart.mark.name, {
        'font-size': 10,
        stroke: '#fff',
        'stroke-width': 3,
        'paint-order': 'stroke',
      }),
    );
  }
  parts.push(
    lineFrom(MARGIN.left, bottomY, width - MARGIN.right, bottomY),
    textAt(MARGIN.left + plotWidth / 2, bottomY + 34, chart.groupAxis, { 'text-anchor': 'middle' }),
  );
  const behind = chart.behind === undefined ? [] : [{ name: chart.behind, look: LOOKS.quiet }];
  const key = legend([...series, ...behind], MARGIN.left, bottomY + MARGIN.bottom, plotWidth);
  return picture(width, bottomY + MARGIN.bottom + key.height, chart.title, [...parts, ...key.parts]);
}

function barWithWhisker(
  { value, low, high, behind, title }: BarGroup['bars'][number],
  x: number,
  width: number,
  y: (value: number) => number,
  bottomY: number,
  look: Look,
): string[] {
  const parts: string[] = [];
  if (behind !== undefined) parts.push(bar(x, y(behind), width, bottomY - y(behind), LOOKS.quiet, title));
  parts.push(bar(x, y(value), width, bottomY - y(value), look, title));
  if (low !== undefined && high !== undefined) {
    const centre = x + width / 2;
    const stroke = { stroke: '#000', 'stroke-width': 1.2 };
    parts.push(
      lineFrom(centre, y(low), centre, y(high), stroke),
      lineFrom(centre - 3, y(low), centre + 3, y(low), stroke),
      lineFrom(centre - 3, y(high), centre + 3, y(high), stroke),
    );
  }
  const above = Math.min(y(value), y(high ?? value), y(behind ?? value)) - 3;
  parts.push(
    textAt(x + width / 2, above, tickText(value >= 100 ? Math.round(value) : Number(value.toPrecision(2))), {
      'text-anchor': 'middle',
      'font-size': 9,
    }),
  );
  return parts;
}

/** Grid lines, numbers and the turned name of a vertical axis. */
export function valueAxis(
  name: string,
  steps: readonly number[],
  y: (value: number) => number,
  left: number,
  right: number,
): string[] {
  const middle = (y(0) + y(steps.at(-1) ?? 1)) / 2;
  return [
    ...steps.flatMap((step) => [
      lineFrom(left, y(step), right, y(step), { stroke: '#ddd' }),
      textAt(left - 6, y(step) + 4, tickText(step), { 'text-anchor': 'end' }),
    ]),
    textAt(14, middle, name, { 'text-anchor': 'middle', transform: `rotate(-90 14 ${middle})` }),
  ];
}

export type StackedBars = {
  title: string;
  valueAxis: string;
  series: readonly { name: string; look: Look }[];
  /** `values` in the order of the series; `note` stands behind the bar. */
  rows: readonly { name: string; values: readonly number[]; note: string }[];
  width: number;
};

const ROW_HEIGHT = 22;
const NAMES_WIDTH = 190;
const NOTES_WIDTH = 70;

/** Horizontal bars, one for each row. */
export function stackedBars({ title, valueAxis: axis, series, rows, width }: StackedBars): Picture {
  const sums = rows.map(({ values }) => values.reduce((sum, value) => sum + value, 0));
  const steps = ticks(Math.max(...sums));
  const right = width - NOTES_WIDTH;
  const x = scale(0, steps.at(-1) ?? 1, NAMES_WIDTH, right);
  const top = 28;
  const bottom = top + rows.length * ROW_HEIGHT;
  const parts = [textAt(8, 16, title, { 'font-weight': 600 })];
  for (const step of steps) {
    parts.push(
      lineFrom(x(step), top, x(step), bottom, { stroke: '#ddd' }),
      textAt(x(step), bottom + 14, tickText(step), { 'text-anchor': 'middle' }),
    );
  }
  rows.forEach(({ name, values, note }, index) => {
    const y = top + index * ROW_HEIGHT;
    let from = 0;
    values.forEach((value, i) => {
      const look = series[i]?.look ?? LOOKS.first;
      const label = `${name}, ${series[i]?.name ?? ''}: ${tickText(value)}`;
      if (value > 0) parts.push(bar(x(from), y + 3, x(from + value) - x(from), ROW_HEIGHT - 7, look, label));
      from += value;
    });
    parts.push(textAt(NAMES_WIDTH - 6, y + 15, name, { 'text-anchor': 'end' }));
    parts.push(textAt(x(from) + 5, y + 15, note, { 'font-size': 11 }));
  });
  parts.push(
    element('line', { x1: NAMES_WIDTH, y1: top, x2: NAMES_WIDTH, y2: bottom, stroke: '#333' }),
    textAt((NAMES_WIDTH + right) / 2, bottom + 30, axis, { 'text-anchor': 'middle' }),
  );
  const key = legend(series, 8, bottom + 42, width - 16);
  return picture(width, bottom + 42 + key.height, title, [...parts, ...key.parts]);
}
