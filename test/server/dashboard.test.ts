/**
 * The dashboard in a headless Chromium, served by the built package over the demo model: what it shows, how it is used
 * by keyboard, what it may load. Skipped where there is no Chromium. With DASHBOARD_PICTURES set to a folder, the
 * pictures of the README are written there.
 */
/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
/// <reference lib="dom.asynciterable" />
import { existsSync } from 'node:fs';
import path from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startServer } from './built-server.js';

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find((file) => existsSync(file));
const pictures = process.env.DASHBOARD_PICTURES;

let running: Awaited<ReturnType<typeof startServer>>;
let browser: Browser;

beforeAll(async () => {
  running = await startServer(
    { gpu: 'host', vram: '5MB', pinThreads: false },
    { apiKeys: ['page-key'], readBandwidthGBs: 34 },
  );
  if (executablePath) browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
});
afterAll(async () => {
  await browser?.close();
  await running.stop();
});

async function open(options: Parameters<Browser['newPage']>[0] = {}) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options });
  const faults: string[] = [];
  // A 401 on the way to the key form is what the page expects.
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().includes('401')) faults.push(message.text());
  });
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('request', (request) => {
    if (!request.url().startsWith(running.url)) faults.push(`loads ${request.url()}`);
  });
  await page.goto(`${running.url}/`);
  await page.getByLabel('This server asks for an API key').fill('page-key');
  await page.keyboard.press('Enter');
  await page.getByRole('status').getByText('ready').waitFor();
  return { page, faults };
}

async function say(page: Page, text: string): Promise<string> {
  await page.getByLabel('Temperature').fill('0');
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
  await page.getByRole('log').locator('.assistant small').last().waitFor();
  await page.getByRole('button', { name: 'Send' }).waitFor();
  return page.getByRole('log').locator('.assistant').last().innerText();
}

it('is offered with headers that let it load nothing from elsewhere, and not at all where told so', async () => {
  const response = await fetch(`${running.url}/`);
  expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
  expect(response.headers.get('x-content-type-options')).toBe('nosniff');
  expect(await response.text()).not.toMatch(/(src|href)="(https?:)?\/\//);
  const etag = response.headers.get('etag') ?? '';
  const again = await fetch(`${running.url}/`, { headers: { 'if-none-match': etag } });
  expect(again.status).toBe(304);
  const without = await startServer({}, { dashboard: false });
  expect((await fetch(`${without.url}/`)).status).toBe(404);
  await without.stop();
});

describe.skipIf(executablePath === undefined)('in a browser (needs chromium)', () => {
  it('chats, and the history goes along', async () => {
    const { page, faults } = await open();
    const first = await say(page, 'Tell me a story about a fox.');
    expect(first).toMatch(/fox.*\n.*tokens · \d+ tok\/s · first after \d+ ms/s);
    const second = await say(page, 'What is 12 + 7?');
    expect(second).toMatch(/from the cache/);
    expect(await page.getByRole('log').locator('.turn').count()).toBe(4);
    await page.getByRole('button', { name: 'New chat' }).click();
    expect(await page.getByRole('log').locator('.turn').count()).toBe(0);
    expect(faults).toEqual([]);
    await page.close();
  });

  it('shows reasoning apart from the answer, and leaves it out of the history', async () => {
    const { page, faults } = await open();
    const sent: { messages: object[] }[] = [];
    await page.route('**/v1/chat/completions', async (route) => {
      sent.push(route.request().postDataJSON());
      const deltas = [
        { reasoning_content: 'A fox' },
        { reasoning_content: ', then.' },
        { content: 'Once' },
        {},
      ];
      const timing = { decode_tokens_per_second: 9, time_to_first_token_ms: 1 };
      const usage = {
        completion_tokens: 4,
        prompt_tokens: 5,
        prompt_tokens_details: { cached_tokens: 0 },
        timing,
      };
      const chunks = [...deltas.map((delta) => ({ choices: [{ index: 0, delta }] })), { choices: [], usage }];
      const events = chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`);
      await route.fulfill({ contentType: 'text/event-stream', body: `${events.join('')}data: [DONE]\n\n` });
    });
    await say(page, 'Tell me a story.');
    const answer = page.getByRole('log').locator('.assistant');
    expect(await answer.locator('details').textContent()).toBe('ReasoningA fox, then.');
    await answer.locator('summary').click();
    await expect.poll(() => answer.innerText()).toMatch(/Reasoning\s*Once/);
    await say(page, 'Go on.');
    expect(sent[1]?.messages.slice(1)).toEqual([
      { role: 'assistant', content: 'Once' },
      { role: 'user', content: 'Go on.' },
    ]);
    expect(faults).toEqual([]);
    await page.close();
  });

  it('shows figures, experts and lanes that follow the engine', async () => {
    const { page, faults } = await open();
    await say(page, 'Tell me a story about a bear.');
    const speed = page.locator('#figures > div', { hasText: 'Generation' }).locator('dd').first();
    await expect.poll(async () => Number.parseFloat(await speed.innerText())).toBeGreaterThan(0);
    const experts = page.getByRole('application');
    expect(await experts.getAttribute('aria-label')).toMatch(/6 layers with 16 experts each, \d+ of them/);
    const pixels = await page.locator('#experts-map').evaluate((canvas) => {
      const map = canvas as HTMLCanvasElement;
      const data = map.getContext('2d')?.getImageData(0, 0, map.width, map.height).data ?? [];
      return new Set(
        Array.from({ length: data.length / 4 }, (_, at) => data.slice(4 * at, 4 * at + 3).join()),
      ).size;
    });
    expect(pixels).toBeGreaterThan(20);
    const timeline = page.locator('#lanes svg');
    expect(await timeline.getAttribute('aria-label')).toMatch(/last 3 steps took .*gpu \d+%.*unit 1 \d+%/);
    const lanes = await timeline.locator('text.lane').allTextContents();
    expect(lanes).toEqual(['engine', 'gpu', 'transfer', 'unit 0', 'unit 1']);
    const kinds = await timeline.locator('rect.bar title').allTextContents();
    for (const kind of ['attention of layer 5', 'experts of layer 0', 'logits', 'sample'])
      expect(
        kinds.some((title) => title.includes(kind)),
        kind,
      ).toBe(true);
    expect(faults).toEqual([]);
    await page.close();
  });

  it('is used by keyboard alone', async () => {
    const { page, faults } = await open();
    await page.reload();
    await page.getByRole('status').getByText('ready').waitFor();
    await page.keyboard.press('Tab');
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe('Skip to the message');
    await page.getByRole('application').focus();
    for (const key of ['ArrowDown', 'ArrowRight', 'ArrowRight', 'ArrowUp', 'ArrowUp'])
      await page.keyboard.press(key);
    expect(await page.locator('#experts-spoken').innerText()).toMatch(/^Layer 0, expert 2: [\d.]+% of/);
    await page.getByLabel('Tokens').fill('900');
    await page.getByLabel('Message', { exact: true }).fill('Tell me a long story.');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Stop' }).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Send' }).waitFor();
    expect(await page.getByRole('log').locator('.assistant').innerText()).toMatch(/stopped|tokens/);
    expect(faults).toEqual([]);
    await page.close();
  });

  it('gives every control and picture a name', async () => {
    const { page } = await open();
    await say(page, 'Hello');
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll('button, input, textarea, svg[role=img], [role=application], section')]
        .filter((element) => {
          const labelled = element.getAttribute('aria-labelledby');
          const labels = 'labels' in element ? ((element.labels as NodeList | null) ?? []) : [];
          const name =
            element.getAttribute('aria-label') ??
            (labelled ? document.getElementById(labelled)?.textContent : undefined) ??
            [...labels].map((label) => label.textContent).join('');
          return `${name}${element instanceof HTMLButtonElement ? element.textContent : ''}`.trim() === '';
        })
        .map((element) => element.outerHTML.slice(0, 80)),
    );
    expect(nameless).toEqual([]);
    await page.close();
  });

  it.each(['light', 'dark'] as const)('has text that can be read in the %s theme', async (colorScheme) => {
    const { page } = await open({ colorScheme });
    await say(page, 'Tell me a story about a fox.');
    await say(page, 'What is 12 + 7?');
    await page.waitForTimeout(600);
    const pale = await page.evaluate(() => {
      const luminance = (colour: string) => {
        const [red = 0, green = 0, blue = 0] = (colour.match(/[\d.]+/g) ?? []).map((part) => {
          const value = Number(part) / 255;
          return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
      };
      const behind = (element: Element | null): string => {
        if (element === null) return 'rgb(255, 255, 255)';
        const colour = getComputedStyle(element).backgroundColor;
        return /, 0\)$/.test(colour) ? behind(element.parentElement) : colour;
      };
      return [...document.querySelectorAll('h1, h2, p, b, small, dt, dd, label, button, .turn, .legend span')]
        .filter((element) => element.textContent?.trim() && element.checkVisibility())
        .filter((element) => {
          const [front, back] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
          return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05) < 4.5;
        })
        .map((element) => `${element.tagName}.${element.className}: ${element.textContent}`);
    });
    expect(pale).toEqual([]);
    if (pictures) await page.screenshot({ path: path.join(pictures, `dashboard-${colorScheme}.png`) });
    await page.close();
  });

  it('fits a narrow window', async () => {
    const { page } = await open({ viewport: { width: 390, height: 800 } });
    await say(page, 'Hello');
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    expect(wide).toBeLessThanOrEqual(390);
    await page.close();
  });
});
