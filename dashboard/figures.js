/**
 * The tiles above the charts: tokens/s, time to first token, hit rate, bandwidth, places. Called by main.js with each
 * snapshot; remembers the last ones for the small curves.
 */

/** @typedef {import('./live.js').Live} Live */
/** @typedef {{ value: string, unit: string, detail: string, point: number | null }} Reading */

/** Half a minute. */
const REMEMBERED = 60;
const CURVE_WIDTH = 120;
const CURVE_HEIGHT = 22;
const SVG = 'http://www.w3.org/2000/svg';

/** @type {{ name: string, read: (live: Live) => Reading }[]} */
const TILES = [
  { name: 'Generation', read: tokens },
  { name: 'First token', read: firstToken },
  { name: 'Expert hits', read: hits },
  { name: 'Weights read', read: bandwidth },
  { name: 'Answers', read: requests },
];

export class Figures {
  /** @param {HTMLElement} list a dl element */
  constructor(list) {
    this.tiles = TILES.map(({ name, read }) => {
      const tile = document.createElement('div');
      const term = document.createElement('dt');
      term.textContent = name;
      const value = document.createElement('dd');
      const curve = document.createElementNS(SVG, 'svg');
      curve.setAttribute('viewBox', `0 0 ${CURVE_WIDTH} ${CURVE_HEIGHT}`);
      curve.setAttribute('preserveAspectRatio', 'none');
      curve.setAttribute('aria-hidden', 'true');
      const line = document.createElementNS(SVG, 'polyline');
      line.setAttribute('fill', 'none');
      line.setAttribute('stroke', 'var(--accent)');
      line.setAttribute('stroke-width', '1.5');
      line.setAttribute('vector-effect', 'non-scaling-stroke');
      curve.append(line);
      const detail = document.createElement('dd');
      detail.className = 'detail';
      tile.append(term, value, curve, detail);
      list.append(tile);
      /** @type {number[]} */
      const points = [];
      return { read, value, detail, line, points };
    });
  }

  /** @param {Live} live */
  show(live) {
    for (const { read, value, detail, line, points } of this.tiles) {
      const reading = read(live);
      const unit = document.createElement('small');
      unit.textContent = ` ${reading.unit}`;
      value.replaceChildren(reading.value, unit);
      detail.textContent = reading.detail;
      points.push(reading.point ?? 0);
      if (points.length > REMEMBERED) points.shift();
      line.setAttribute('points', curvePoints(points));
    }
  }
}

/** @param {number[]} points */
function curvePoints(points) {
  const top = Math.max(...points, 1e-9);
  return points
    .map((point, index) => {
      const x = (index / Math.max(1, points.length - 1)) * CURVE_WIDTH;
      return `${x.toFixed(1)},${(CURVE_HEIGHT - 2 - (point / top) * (CURVE_HEIGHT - 4)).toFixed(1)}`;
    })
    .join(' ');
}

/** @param {Live} live @returns {Reading} */
function tokens({ recent }) {
  const rate = recent.tokens_per_second;
  const detail = `batch size ${recent.batch_size.toFixed(1)}`;
  return { value: short(rate), unit: 'tok/s', detail, point: rate };
}

/** @param {Live} live @returns {Reading} */
function firstToken({ recent }) {
  const time = recent.time_to_first_token_ms;
  return {
    value: time === null ? '–' : short(time),
    unit: 'ms',
    detail: 'median, time to it',
    point: time,
  };
}

/** @param {Live} live @returns {Reading} */
function hits({ model, recent, total }) {
  if (model.gpu === 'off') return { value: '–', unit: '', detail: 'no GPU lane', point: null };
  const { hits: found, misses } = total.experts;
  const share = recent.hit_rate * 100;
  const overall = found + misses > 0 ? ((100 * found) / (found + misses)).toFixed(0) : '–';
  const detail = `${overall}% since start`;
  return { value: share.toFixed(0), unit: '%', detail, point: share };
}

/** @param {Live} live @returns {Reading} */
function bandwidth({ recent }) {
  const share = recent.read_bandwidth_share;
  const detail =
    share === null
      ? 'while steps run'
      : `${(100 * share).toFixed(0)}% of ${recent.read_bandwidth_gbs?.toFixed(0)} GB/s`;
  return { value: recent.weight_read_gbs.toFixed(2), unit: 'GB/s', detail, point: recent.weight_read_gbs };
}

/** @param {Live} live @returns {Reading} */
function requests({ requests: counts, kv_blocks }) {
  const used = 100 * (1 - kv_blocks.free / Math.max(1, kv_blocks.total));
  return {
    value: String(counts.places_taken),
    unit: 'running',
    detail: `${counts.queued} queued, KV ${used.toFixed(0)}%`,
    point: counts.places_taken,
  };
}

/** @param {number} value */
function short(value) {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}
