/**
 * The lanes of the last steps as a timeline: engine, GPU, transfers, units, each span a bar at its time. Every step has
 * a panel of the same width and a scale of its own, so that what overlaps can be seen whatever a step took. Called by
 * main.js with each snapshot; keeps the last steps that computed something.
 */

/** @typedef {import('./live.js').Live} Live */
/** @typedef {import('./live.js').Step} Step */
/** @typedef {{ step: Step, left: number, width: number }} Panel */

const SHOWN_STEPS = 3;
const LABEL_WIDTH = 92;
const PANEL_GAP = 6;
const LEAST_PANEL_WIDTH = 130;
const LANE_HEIGHT = 27;
const BAR_HEIGHT = 16;
const HEAD_HEIGHT = 22;
const SVG = 'http://www.w3.org/2000/svg';
const KINDS = {
  attention: 'attention',
  experts: 'experts',
  layers: 'whole layers',
  transfer: 'transfers',
  logits: 'logits',
  sample: 'sampling',
};

export class Lanes {
  /** @param {HTMLElement} frame @param {HTMLElement} legend */
  constructor(frame, legend) {
    this.frame = frame;
    this.legend = legend;
    /** @type {Step[]} */
    this.steps = [];
    /** @type {string[]} */
    this.lanes = [];
    /** @type {Record<string, number>} */
    this.busy = {};
    frame.textContent = 'No step yet.';
    new ResizeObserver(() => this.draw()).observe(frame);
  }

  /** @param {Live} live */
  show(live) {
    if (live.timeline.length > 0) this.steps = live.timeline.slice(-SHOWN_STEPS);
    this.busy = live.recent.busy;
    this.lanes = ['engine', ...Object.keys(this.busy)];
    this.draw();
  }

  draw() {
    const { steps, frame, lanes } = this;
    if (steps.length === 0) return;
    const least = LABEL_WIDTH + steps.length * (LEAST_PANEL_WIDTH + PANEL_GAP);
    const width = Math.max(least, frame.clientWidth);
    const height = HEAD_HEIGHT + lanes.length * LANE_HEIGHT;
    const svg = element('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img' });
    svg.setAttribute('aria-label', this.summary());
    const wide = (width - LABEL_WIDTH) / steps.length;
    const panels = steps.map((step, index) => ({
      step,
      left: LABEL_WIDTH + index * wide,
      width: wide - (index < steps.length - 1 ? PANEL_GAP : 0),
    }));
    for (const panel of panels) drawPanel(svg, panel, height);
    lanes.forEach((lane, index) => {
      this.drawLane(svg, lane, HEAD_HEIGHT + (index + 0.5) * LANE_HEIGHT, panels);
    });
    frame.replaceChildren(svg);
    this.drawLegend();
  }

  /** @param {Element} svg @param {string} lane @param {number} middle @param {Panel[]} panels */
  drawLane(svg, lane, middle, panels) {
    svg.append(words(lane, 2, middle + 4, 'lane'));
    const share = this.busy[lane];
    if (share !== undefined)
      svg.append(words(`${(100 * share).toFixed(0)}%`, LABEL_WIDTH - 8, middle + 4, '', 'end'));
    for (const { step, left, width } of panels) {
      const perUs = width / Math.max(1, step.endUs - step.startUs);
      for (const span of step.spans) {
        if (span.lane !== lane || span.name === 'step') continue;
        const bar = element('rect', {
          class: `bar ${span.name === 'experts' ? 'experts-span' : span.name}`,
          x: left + (span.startUs - step.startUs) * perUs,
          y: middle - BAR_HEIGHT / 2,
          width: Math.max(1, (span.endUs - span.startUs) * perUs),
          height: BAR_HEIGHT,
          rx: 1.5,
        });
        const title = element('title', {});
        const layer = span.layer >= 0 ? ` of layer ${span.layer}` : '';
        title.textContent = `${lane}: ${span.name}${layer}, ${(span.endUs - span.startUs).toFixed(1)} µs`;
        bar.append(title);
        svg.append(bar);
      }
    }
  }

  drawLegend() {
    const seen = new Set(this.steps.flatMap(({ spans }) => spans.map(({ name }) => name)));
    const entries = Object.entries(KINDS).filter(([kind]) => seen.has(kind));
    const key = entries.map(([kind]) => kind).join();
    if (this.legend.dataset.key === key) return;
    this.legend.dataset.key = key;
    this.legend.replaceChildren(
      ...entries.map(([kind, name]) => {
        const entry = document.createElement('span');
        const swatch = document.createElement('i');
        swatch.className = kind === 'experts' ? 'experts-span' : kind;
        entry.append(swatch, name);
        return entry;
      }),
    );
  }

  summary() {
    const times = this.steps.map((step) => `${milliseconds(step)} ms`).join(', ');
    const busy = Object.entries(this.busy).map(([lane, share]) => `${lane} ${(100 * share).toFixed(0)}%`);
    return `The last ${this.steps.length} steps took ${times}. Busy in the last seconds: ${busy.join(', ')}.`;
  }
}

/** @param {Element} svg @param {Panel} panel @param {number} height */
function drawPanel(svg, { step, left, width }, height) {
  svg.append(element('rect', { class: 'band', x: left, y: 0, width, height, rx: 4 }));
  const sequences = `${step.sequences} ${step.sequences === 1 ? 'sequence' : 'sequences'}`;
  svg.append(words(`${milliseconds(step)} ms, ${sequences}`, left + 8, 15));
}

/** @param {Step} step */
function milliseconds({ startUs, endUs }) {
  return ((endUs - startUs) / 1e3).toFixed(2);
}

/** @param {string} name @param {Record<string, string | number>} attributes */
function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

/** @param {string} text @param {number} x @param {number} y @param {string} [kind] @param {string} [anchor] */
function words(text, x, y, kind = '', anchor = 'start') {
  const made = element('text', { x, y, class: kind, 'text-anchor': anchor });
  made.textContent = text;
  return made;
}
