/**
 * The heat map of experts: a row per MoE layer, a column per expert, coloured by the share of the layer's tokens that
 * the expert got lately, with a mark where it lies in GPU memory. Called by main.js with each snapshot.
 */

/** @typedef {import('./live.js').Live} Live */

/** Tokens of this long ago count half. */
const HALF_LIFE_MS = 5000;
/** Share, in multiples of an even share, that has the strongest colour. */
const TOP = 4;
const LABEL_WIDTH = 34;
const AXIS_HEIGHT = 18;
const STEPS = ['--heat-0', '--heat-1', '--heat-2', '--heat-3'];

export class Experts {
  /**
   * @param {HTMLElement} frame takes the keyboard
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} cell tells about one expert
   * @param {HTMLElement} spoken says it aloud when the cursor moves
   * @param {HTMLElement} legend
   */
  constructor(frame, canvas, cell, spoken, legend) {
    this.frame = frame;
    this.canvas = canvas;
    this.cell = cell;
    this.spoken = spoken;
    /** @type {Live['experts'] | undefined} */
    this.experts = undefined;
    /** @type {number[]} */
    this.before = [];
    this.loads = new Float64Array(0);
    this.seenMs = 0;
    this.cursor = { row: 0, expert: 0 };
    this.hasGpu = false;
    legend.innerHTML =
      '<span>0<i class="scale"></i>4 × an even share of the layer’s tokens</span>' +
      '<span id="resident-key"><i class="resident"></i>in GPU memory</span>';
    frame.addEventListener('keydown', (event) => this.move(event));
    frame.addEventListener('focus', () => this.tell());
    canvas.addEventListener('pointermove', (event) => this.point(event));
    new ResizeObserver(() => this.draw()).observe(frame);
  }

  /** @param {Live} live */
  show({ experts, model }) {
    const now = performance.now();
    if (this.loads.length !== experts.tokens.length) {
      this.loads = Float64Array.from(experts.tokens);
    } else if (experts.tokens.some((count, at) => count > (this.before[at] ?? 0))) {
      const keep = 0.5 ** ((now - this.seenMs) / HALF_LIFE_MS);
      experts.tokens.forEach((count, at) => {
        this.loads[at] = (this.loads[at] ?? 0) * keep + count - (this.before[at] ?? 0);
      });
    }
    this.seenMs = now;
    this.before = experts.tokens;
    this.experts = experts;
    this.hasGpu = model.gpu !== 'off';
    const key = document.getElementById('resident-key');
    if (key) key.hidden = !this.hasGpu;
    this.residents = new Set(experts.residents.map(([layer, expert]) => `${layer} ${expert}`));
    this.frame.setAttribute('aria-label', this.summary());
    this.tell();
  }

  /** @param {number} row @param {number} expert multiples of an even share */
  loadOf(row, expert) {
    const count = this.experts?.per_layer ?? 0;
    const layer = this.loads.subarray(row * count, (row + 1) * count);
    const total = layer.reduce((sum, load) => sum + load, 0);
    return total > 0 ? ((layer[expert] ?? 0) / total) * count : 0;
  }

  /** @param {number} row @param {number} expert */
  isResident(row, expert) {
    return this.residents?.has(`${this.experts?.layers[row]} ${expert}`) ?? false;
  }

  summary() {
    const { layers = [], per_layer = 0 } = this.experts ?? {};
    const residents = this.hasGpu ? `, ${this.residents?.size ?? 0} of them in GPU memory` : '';
    return `Heat map: ${layers.length} layers with ${per_layer} experts each${residents}`;
  }

  draw() {
    const { experts, canvas } = this;
    if (experts === undefined) return;
    const columns = experts.per_layer;
    const rows = experts.layers.length;
    const width = this.frame.clientWidth;
    const wide = (width - LABEL_WIDTH) / Math.max(1, columns);
    const high = Math.max(5, Math.min(wide * 0.8, 30, 420 / Math.max(1, rows)));
    const height = rows * high + AXIS_HEIGHT;
    const scale = devicePixelRatio;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext('2d');
    if (pen === null) return;
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colours = STEPS.map((name) => rgb(style.getPropertyValue(name)));
    const gap = wide > 8 ? 1.5 : 0.5;
    this.place = { wide, high };
    for (let row = 0; row < rows; row++) {
      for (let expert = 0; expert < columns; expert++) {
        const x = LABEL_WIDTH + expert * wide;
        pen.fillStyle = heat(colours, this.loadOf(row, expert));
        pen.beginPath();
        pen.roundRect(x, row * high, wide - gap, high - gap, wide > 10 ? 3 : 0);
        pen.fill();
        if (this.isResident(row, expert)) mark(pen, x, row * high, wide - gap, high - gap, style);
      }
    }
    this.drawLabels(pen, style, wide, high);
    this.drawCursor(pen, style, gap);
  }

  /** @param {CanvasRenderingContext2D} pen @param {CSSStyleDeclaration} style @param {number} wide @param {number} high */
  drawLabels(pen, style, wide, high) {
    const { layers = [], per_layer = 0 } = this.experts ?? {};
    pen.fillStyle = style.getPropertyValue('--soft');
    pen.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = 'middle';
    pen.textAlign = 'right';
    const everyRow = Math.ceil(14 / high);
    layers.forEach((layer, row) => {
      if (row % everyRow === 0) pen.fillText(`L${layer}`, LABEL_WIDTH - 8, row * high + high / 2);
    });
    pen.textAlign = 'center';
    const everyColumn = [1, 2, 4, 8, 16, 32, 64].find((step) => step * wide >= 26) ?? 128;
    for (let expert = 0; expert < per_layer; expert += everyColumn)
      pen.fillText(
        `${expert}`,
        LABEL_WIDTH + (expert + 0.5) * wide,
        layers.length * high + AXIS_HEIGHT / 2 + 1,
      );
  }

  /** @param {CanvasRenderingContext2D} pen @param {CSSStyleDeclaration} style @param {number} gap */
  drawCursor(pen, style, gap) {
    if (document.activeElement !== this.frame || this.place === undefined) return;
    const { wide, high } = this.place;
    pen.strokeStyle = style.getPropertyValue('--ink');
    pen.lineWidth = 2;
    pen.strokeRect(
      LABEL_WIDTH + this.cursor.expert * wide - gap / 2,
      this.cursor.row * high - gap / 2 + 0.5,
      wide,
      high,
    );
  }

  /** @param {KeyboardEvent} event */
  move(event) {
    /** @type {Record<string, [number, number]>} */
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const [down, right] = moves[event.key] ?? [];
    if (down === undefined || right === undefined || this.experts === undefined) return;
    event.preventDefault();
    this.cursor = {
      row: within(this.cursor.row + down, this.experts.layers.length),
      expert: within(this.cursor.expert + right, this.experts.per_layer),
    };
    this.tell();
    this.spoken.textContent = this.cell.textContent;
  }

  /** @param {PointerEvent} event */
  point(event) {
    if (this.experts === undefined || this.place === undefined) return;
    const expert = Math.floor((event.offsetX - LABEL_WIDTH) / this.place.wide);
    const row = Math.floor(event.offsetY / this.place.high);
    if (expert < 0 || row >= this.experts.layers.length) return;
    this.cursor = { row, expert: within(expert, this.experts.per_layer) };
    this.tell();
  }

  tell() {
    const { row, expert } = this.cursor;
    const layer = this.experts?.layers[row];
    if (layer === undefined) return;
    const load = this.loadOf(row, expert);
    const share = ((100 * load) / (this.experts?.per_layer ?? 1)).toFixed(1);
    const where = this.hasGpu
      ? this.isResident(row, expert)
        ? ', in GPU memory'
        : ', on the units only'
      : '';
    this.cell.textContent = `Layer ${layer}, expert ${expert}: ${share}% of the layer’s tokens (${load.toFixed(1)} × even)${where}`;
    this.draw();
  }
}

/**
 * @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} wide @param {number} high
 * @param {CSSStyleDeclaration} style
 */
function mark(pen, x, y, wide, high, style) {
  pen.fillStyle = style.getPropertyValue('--resident');
  pen.beginPath();
  if (wide < 10 || high < 10) pen.rect(x, y + high - 1.5, wide, 1.5);
  else pen.arc(x + wide - 6, y + 6, 3, 0, 2 * Math.PI);
  pen.fill();
}

/** @param {number[][]} colours @param {number} load */
function heat(colours, load) {
  // Bent a little, so that shares below the even one still differ.
  const at = Math.min(1, load / TOP) ** 0.75 * (colours.length - 1);
  const below = Math.min(Math.floor(at), colours.length - 2);
  const mixed = (colours[below] ?? []).map((from, index) => {
    const to = colours[below + 1]?.[index] ?? from;
    return Math.round(from + (to - from) * (at - below));
  });
  return `rgb(${mixed.join(' ')})`;
}

/** @param {string} hex */
function rgb(hex) {
  const value = Number.parseInt(hex.trim().slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** @param {number} value @param {number} count */
function within(value, count) {
  return Math.min(Math.max(value, 0), count - 1);
}
