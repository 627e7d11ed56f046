/**
 * The tables of docs/cuda-kernels.md: registers, shared memory and occupancy of each kernel and target, and
 * traffic, work and least time of each launch. Called by compile-all.mjs; replaces what stands between the
 * page's two pairs of markers.
 */
import { boundUs, decodeCosts, devices, models, prefillCosts } from './kernel-costs.mjs';
import { runsOn } from './nvcc.mjs';

/**
 * @typedef {import('./compile-all.mjs').Placed} Placed
 * @typedef {import('./kernel-costs.mjs').Cost} Cost
 * @typedef {import('./kernel-costs.mjs').Device} Device
 */

const context = 2048;
const prompt = 512;

/**
 * @param {string} page
 * @param {Placed[]} placed
 * @param {number[]} targets
 * @returns {string} the page with new tables
 */
export function writeTables(page, placed, targets) {
  const bounds = models.map((model) =>
    [
      `### ${model.name}\n\nDecode: one token after ${context} others.\n`,
      costTable(decodeCosts(model, context)),
      `\nPrefill: ${prompt} tokens of a new sequence.\n`,
      costTable(prefillCosts(model, prompt)),
    ].join('\n'),
  );
  return replace(replace(page, 'resources', resourceTable(placed, targets)), 'bounds', bounds.join('\n\n'));
}

/**
 * @param {string} page
 * @param {string} name of the markers
 * @param {string} table
 */
function replace(page, name, table) {
  const pattern = new RegExp(`(<!-- ${name} -->\\n)[\\s\\S]*?(<!-- end of ${name} -->)`);
  if (!pattern.test(page)) throw new Error(`docs/cuda-kernels.md: the markers of '${name}' are missing`);
  return page.replace(pattern, (_, begin, end) => `${begin}${table}\n${end}`);
}

/**
 * @param {Placed[]} placed
 * @param {number[]} targets
 */
function resourceTable(placed, targets) {
  const head = ['kernel', 'threads', 'shared bytes', ...targets.map((target) => `sm_${target}`)];
  const names = [...new Set([...placed].sort(byName).map((kernel) => kernel.name))];
  const rows = names.map((name) => {
    const of = targets.map((target) =>
      placed.find((kernel) => kernel.name === name && kernel.target === target),
    );
    const shared = [
      ...new Set(of.flatMap((kernel) => (kernel ? [kernel.sharedBytes + kernel.dynamicBytes] : []))),
    ];
    return [
      `\`${name}\``,
      String(of[0]?.blockThreads ?? ''),
      shared.length === 1 ? String(shared[0]) : `${Math.min(...shared)} to ${Math.max(...shared)}`,
      ...of.map((kernel) => (kernel ? cell(kernel) : 'none')),
    ];
  });
  return table(head, rows);
}

/**
 * @param {Placed} a
 * @param {Placed} b
 */
function byName(a, b) {
  return a.file.localeCompare(b.file) || a.name.localeCompare(b.name, 'en', { numeric: true });
}

/** @param {Placed} kernel */
function cell(kernel) {
  if (!runsOn(kernel.name, kernel.target)) return 'not run';
  return `${kernel.registers}, ${Math.round((100 * kernel.warps) / kernel.warpRoom)}%`;
}

/** @param {Cost[]} costs */
function costTable(costs) {
  const head = [
    'launch',
    'times',
    'least bytes',
    'moved',
    'operations',
    ...devices.map((d) => `${d.name} us`),
  ];
  const rows = costs.map((cost) => [
    cost.kernel,
    String(cost.perStep),
    size(cost.minimumBytes),
    `${(cost.movedBytes / cost.minimumBytes).toFixed(2)} x`,
    `${count(cost.ops)} ${cost.unit}`,
    ...devices.map((device) => bound(cost, device)),
  ]);
  const totals = devices.map((device) => {
    const us = costs.reduce((sum, cost) => sum + cost.perStep * boundUs(cost, device), 0);
    return `**${(us / 1e3).toFixed(2)} ms**`;
  });
  return table(head, [...rows, ['**step**', '', '', '', '', ...totals]]);
}

/**
 * @param {Cost} cost
 * @param {Device} device
 */
function bound(cost, device) {
  const us = boundUs(cost, device);
  const memory = us * device.bandwidthGBs * 1e3 <= cost.minimumBytes * 1.000001;
  return `${us < 10 ? us.toFixed(2) : us.toFixed(1)}${memory ? '' : ' (work)'}`;
}

/** @param {number} bytes */
function size(bytes) {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(2)} MB` : `${(bytes / 1e3).toFixed(1)} kB`;
}

/** @param {number} n */
function count(n) {
  return n >= 1e9 ? `${(n / 1e9).toFixed(2)} G` : `${(n / 1e6).toFixed(3)} M`;
}

/**
 * @param {string[]} head
 * @param {string[][]} rows
 */
function table(head, rows) {
  return [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
}
