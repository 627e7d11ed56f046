import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkpointShape } from '../../src/cli/checkpoint-shape.js';
import type { CliContext } from '../../src/cli/context.js';
import { planCommand } from '../../src/cli/plan.js';
import { modelFacts } from '../../src/engine/model-facts.js';
import { openModel } from '../../src/model/open-model.js';
import { planBox } from '../../src/sim/buy.js';
import { denseBytes, expertsBytes } from '../../src/sim/models.js';
import type { Cell } from '../../src/sim/point.js';
import { writeReport } from '../../src/sim/report/write-report.js';
import { PointRunner } from '../../src/sim/run-point.js';
import { basePoint, SUITES, suitePoints } from '../../src/sim/suites.js';

const browser = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find((file) => existsSync(file));
const skipped = browser === undefined ? ' (skipped: no chromium)' : '';
const folder = mkdtempSync(path.join(tmpdir(), 'nearmoe-report-'));
let cells: Cell[] = [];

beforeAll(() => {
  const runner = new PointRunner();
  const load = { promptTokens: 8, answerTokens: 6 };
  const some = SUITES.flatMap((suite) =>
    suitePoints(suite, load).filter(({ units, batch }, index) => index % 7 === 0 && units !== 5 && batch < 8),
  );
  const boxes = suitePoints('paper', load).filter(
    ({ model, units }) => model === 'qwen3-30b-a3b' && units === 4,
  );
  const points = [...boxes, ...some].map((point) => ({ ...point, workloads: point.workloads.slice(0, 2) }));
  cells = points.flatMap((point) => runner.run(point));
  writeReport(folder, cells);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('suites', () => {
  it('cover the grid of the paper, 60 boxes', () => {
    const points = suitePoints('paper');
    expect(points.length).toBe(60);
    expect(
      new Set(points.map(({ model, units, unitBandwidthGBs }) => `${model} ${units} ${unitBandwidthGBs}`))
        .size,
    ).toBe(60);
  });

  it('give each cell its times, speed-up and share of the bound', () => {
    expect(cells.length).toBeGreaterThan(40);
    for (const cell of cells) {
      const about = `${cell.model} ${cell.units} ${cell.policy}`;
      expect(cell.totalMs, about).toBeGreaterThan(cell.ttftMs);
      expect(cell.shareOfBound, about).toBeGreaterThan(0);
      expect(cell.shareOfBound, about).toBeLessThanOrEqual(1);
      expect(cell.speedupLeast).toBeLessThanOrEqual(cell.speedupOverMonde);
      expect(cell.speedupMost).toBeGreaterThanOrEqual(cell.speedupOverMonde);
      const { breakdown } = cell;
      const phases =
        breakdown.gpuDenseMs +
        breakdown.unitsLastMs +
        breakdown.gpuLastMs +
        breakdown.linkLastMs +
        breakdown.overheadMs;
      expect(Math.abs(phases / cell.totalMs - 1), about).toBeLessThan(1e-6);
    }
    const monde = cells.filter(({ policy }) => policy.startsWith('monde') && policy !== 'monde-cached');
    for (const cell of monde) expect(cell.speedupOverMonde).toBeLessThanOrEqual(1 + 1e-9);
  });
});

describe('a report', () => {
  it('holds every cell in all three forms', () => {
    const json = JSON.parse(readFileSync(path.join(folder, 'report.json'), 'utf8')) as { cells: Cell[] };
    expect(json.cells).toEqual(JSON.parse(JSON.stringify(cells)));
    const text = readFileSync(path.join(folder, 'report.md'), 'utf8');
    const page = readFileSync(path.join(folder, 'report.html'), 'utf8');
    expect(text.split('## All cells')[1]?.trim().split('\n').length).toBe(cells.length + 2);
    for (const cell of cells) expect(page).toContain(`<td>${cell.tpotMs.toFixed(2)}</td>`);
    expect(page).not.toMatch(/(src|href)="http/);
  });

  it.skipIf(browser === undefined)(
    `shows its charts in a browser, inside the page, without errors${skipped}`,
    async () => {
      const running = await chromium.launch({ executablePath: browser ?? '', args: ['--no-sandbox'] });
      try {
        const page = await running.newPage({ viewport: { width: 1140, height: 900 } });
        const faults: string[] = [];
        page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
        page.on('pageerror', (error) => faults.push(error.message));
        page.on('request', (request) => !request.url().startsWith('file:') && faults.push(request.url()));
        await page.goto(pathToFileURL(path.join(folder, 'report.html')).href);
        const charts = await page.locator('svg').evaluateAll((all) =>
          all.map((svg) => {
            const frame = svg.getBoundingClientRect();
            const outside = [...svg.querySelectorAll('text, rect, polyline')].filter((part) => {
              if (part.closest('defs')) return false;
              const box = part.getBoundingClientRect();
              return (
                box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1
              );
            });
            const texts = [...svg.querySelectorAll('text')].map((text) => text.textContent ?? '');
            return {
              name: svg.getAttribute('aria-label') ?? '',
              shapes: svg.querySelectorAll('rect, polyline').length,
              outside: outside.map((part) => part.textContent ?? part.tagName),
              hasUnit: texts.some((text) => /\(.+\)|per second/.test(text)),
            };
          }),
        );
        expect(faults).toEqual([]);
        expect(charts.length).toBeGreaterThan(8);
        for (const chart of charts) {
          expect(chart.shapes, chart.name).toBeGreaterThan(0);
          expect(chart.outside, chart.name).toEqual([]);
          expect(chart.hasUnit, chart.name).toBe(true);
        }
      } finally {
        await running.close();
      }
    },
  );
});

describe('plan', () => {
  it('tells memory by place, times with their bound, and what a change would bring', () => {
    const point = {
      ...basePoint('plan', { promptTokens: 16, answerTokens: 8 }),
      workloads: [{ profile: 'olmoe-1b-7b', seed: 1 }],
    };
    const plan = planBox(point);
    expect(plan.fits).toBe(true);
    expect(plan.experts).toBe(6144);
    expect(plan.expertSlots).toBeGreaterThan(1000);
    expect(plan.shareOfBound).toBeLessThan(1);
    expect(plan.changes.map(({ change }) => change)).toContain('experts in 4 bits (Q4_0)');
    expect(plan.changes.length).toBe(6);
    expect(plan.ttftBoundMs).toBeLessThan(plan.ttftMs);
    expect(plan.tpotBoundMs).toBeLessThan(plan.tpotMs);
    const onGpu = plan.memory.filter(({ place }) => place === 'GPU');
    const used = onGpu.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    expect(used).toBeLessThanOrEqual(16e9);
    // What is left is less than an expert.
    expect(used).toBeGreaterThan(16e9 - 9437184);
    expect(plan.changes[0]?.speedup).toBeGreaterThan(1);
    const tooMuch = planBox({ ...point, model: 'mixtral-8x7b', units: 2 });
    expect([tooMuch.fits, tooMuch.unitsToFit]).toEqual([false, 3]);
  });

  it.each([
    [
      { model: 'mixtral-8x7b', gpu: 'rtx3060', units: 2 },
      1,
      /TOO MUCH[\s\S]*change +3 units to hold all experts/,
    ],
    [{ model: 'qwen3-30b-a3b', units: 12, unitBandwidth: 102.4 }, 0, /TPOT .* least possible/],
  ])('is told in 80 columns: %o', (flags, status, wanted) => {
    let text = '';
    const stdout = { write: (part: string) => (text += part), isTTY: false };
    const context = { stdout } as unknown as CliContext;
    expect(planCommand({ promptTokens: 16, tokens: 6, ...flags }, context)).toBe(status);
    expect(text).toMatch(wanted);
    expect(text).toMatch(/in the way +\S.* \d+% of the time/);
    for (const line of text.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
  });

  it('takes the shape of a checkpoint', () => {
    const opened = openModel(fileURLToPath(new URL('../golden/fixtures/qwen3_moe', import.meta.url)));
    const shape = checkpointShape(opened);
    const stored = modelFacts(opened).sizeBytes;
    expect(expertsBytes(shape)).toBe(stored.byKind.experts);
    const rest = stored.total - expertsBytes(shape);
    expect(Math.abs(denseBytes(shape) / rest - 1)).toBeLessThan(0.02);
    const point = { ...basePoint('plan', { promptTokens: 8, answerTokens: 4 }), model: opened.path };
    expect(planBox(point, shape).expertSlots).toBe(expertsBytes(shape) / shape.expertBytes);
  });
});
