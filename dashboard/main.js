/**
 * The page's beginning: asks for the live figures twice a second while it can be seen, hands them to the parts, keeps
 * theme and key. Loaded by index.html.
 */
import { fetchLive, RequestError, useKey } from './api.js';
import { byId, Chat } from './chat.js';
import { Experts } from './experts.js';
import { Figures } from './figures.js';
import { Lanes } from './lanes.js';

/** @typedef {import('./live.js').Live} Live */

const EVERY_MS = 500;
const THEMES = ['system', 'light', 'dark'];

const status = byId('status', HTMLElement);
const keyForm = byId('key-form', HTMLFormElement);
const figures = new Figures(byId('figures', HTMLElement));
const experts = new Experts(
  byId('experts', HTMLElement),
  byId('experts-map', HTMLCanvasElement),
  byId('experts-cell', HTMLElement),
  byId('experts-spoken', HTMLElement),
  byId('experts-legend', HTMLElement),
);
const lanes = new Lanes(byId('lanes', HTMLElement), byId('lanes-legend', HTMLElement));
const chat = new Chat(tellError);

/** @param {string} state @param {string} text */
function setStatus(state, text) {
  status.dataset.state = state;
  // The region is read aloud; the same text again would be noise.
  if (status.textContent !== text) status.textContent = text;
}

/** @param {unknown} error */
function tellError(error) {
  if (error instanceof RequestError && error.status === 401) {
    keyForm.hidden = false;
    setStatus('gone', 'API key needed');
  } else if (!(error instanceof RequestError)) setStatus('gone', 'server not reachable');
  else if (error.status >= 500) setStatus('gone', error.message);
}

async function refresh() {
  try {
    const live = await fetchLive();
    const busy = live.requests.places_taken > 0;
    setStatus(busy ? 'busy' : 'idle', busy ? 'computing' : 'ready');
    describe(live);
    figures.show(live);
    experts.show(live);
    lanes.show(live);
  } catch (error) {
    tellError(error);
  }
}

/** @param {Live} live */
function describe({ model }) {
  if (chat.model === model.name) return;
  chat.model = model.name;
  document.title = `${model.name} · nearmoe`;
  const name = document.createElement('b');
  name.textContent = model.name;
  const gpu =
    model.gpu === 'off'
      ? 'no GPU lane'
      : `GPU lane ${model.gpu}, ${model.expert_slots} slots, ${model.policy}`;
  const shape = `${model.layers} layers, ${model.num_experts} experts, ${model.num_experts_per_tok} per token`;
  byId('model', HTMLElement).replaceChildren(
    name,
    ` · ${shape} · ${model.units} units (${model.isa}) · ${gpu}`,
  );
}

function applyTheme() {
  const theme = localStorage.getItem('nearmoe-theme') ?? 'system';
  const dark = theme === 'dark' || (theme === 'system' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  byId('theme', HTMLButtonElement).textContent = `Theme: ${theme}`;
  experts.draw();
}

byId('theme', HTMLButtonElement).addEventListener('click', () => {
  const theme = localStorage.getItem('nearmoe-theme') ?? 'system';
  localStorage.setItem('nearmoe-theme', THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'system');
  applyTheme();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', applyTheme);

keyForm.addEventListener('submit', (event) => {
  event.preventDefault();
  useKey(byId('key', HTMLInputElement).value);
  keyForm.hidden = true;
  refresh();
});

applyTheme();
for (;;) {
  if (!document.hidden && keyForm.hidden) await refresh();
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
}
