// The editor of a run: faces, sliders, sequence, regions, drags, undo and redo.

import { get, getPicture, post, postBytes, show } from './api.js';
import { announce, byId, effect, el, guarded } from './dom.js';
import { History } from './history.js';
import * as overlay from './overlay.js';
import * as saving from './saving.js';
import * as sliders from './sliders.js';
import * as strips from './strips.js';
import * as viewer from './viewer.js';

let run = null; // its id
let info = null; // what the studio told about it
let history = null;
let search = null; // the id of the drag or text at work
const masks = new Map(); // id -> what was painted
let painted = ''; // the id of the mask on the overlay
let lastMask = ''; // the one that 'Painted' means

const address = () => `/api/runs/${run}`;
const edit = () => history.edit();
const identity = () => history.present.identity;

export function start() {
  viewer.start();
  strips.start();
  saving.start(() => ({
    address: address(),
    identity: identity(),
    edits: allEdits(),
    pastes: info.identities[identity()].pastes,
  }));
  overlay.start({ points: pointsChanged, mask: guarded(maskPainted) });
  byId('undo').addEventListener('click', () => history.undo() && render());
  byId('redo').addEventListener('click', () => history.redo() && render());
  byId('reset').addEventListener('click', () => change({ steps: [], part: '', mask: '' }));
  byId('with-photograph').addEventListener('change', () => {
    if (byId('with-photograph').checked) byId('split').checked = true;
    viewer.setSplit();
    render();
  });
  byId('compare').addEventListener('click', () =>
    strips.faces(address(), info.identities, info.identities.map(() => edit()), look));
  byId('to-all').addEventListener('click', () => {
    const own = edit();
    history.setAll(Object.fromEntries(info.identities.map((_, i) => [i, own])));
    announce('All faces have this edit now.');
    render();
  });
  for (const radio of document.querySelectorAll('input[name="tool"]')) {
    radio.addEventListener('change', () => setTool(radio.value));
  }
  byId('text-form').addEventListener('submit', (event) => {
    event.preventDefault();
    guarded(startText)();
  });
  byId('drag').addEventListener('click', guarded(startDrag));
  byId('drag-stop').addEventListener('click', guarded(() => post(`${address()}/searches/${search}/stop`)));
  document.addEventListener('keydown', (event) => {
    if (!history || !(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== 'z') return;
    if (/^(INPUT|TEXTAREA)$/.test(event.target.tagName) && ['text', 'number'].includes(event.target.type)) return;
    event.preventDefault();
    if (event.shiftKey ? history.redo() : history.undo()) render();
  });
}

export async function open(chosen) {
  announce(`Opening ${chosen.title}`);
  byId('editor').hidden = false;
  byId('editor-note').textContent = 'Opening the generator \u2026';
  const found = await post(`/api/runs/${chosen.id}/open`);
  run = chosen.id;
  info = found;
  history = new History(run);
  masks.clear();
  painted = lastMask = '';
  if (!info.identities[identity()]) history.look(0);
  byId('editor-note').textContent =
    `${chosen.title} \u2013 ${info.generator}, ${info.resolution} \u00d7 ${info.resolution} pixels`;
  byId('saving').hidden = false;
  byId('points-tool').hidden = !info.drag;
  byId('compare').hidden = byId('to-all').hidden = info.identities.length < 2;
  try {
    sessionStorage.setItem('jaxinv-studio open', JSON.stringify({ id: chosen.id, title: chosen.title }));
  } catch {
    // a reload then starts without a run
  }
  overlay.setGrid(info.grid);
  strips.close();
  viewer.open(run);
  setTool('look');
  byId('text-form').hidden = !info.text;
  buildSliders();
  buildRegions();
  buildFaces();
  saving.links(address(), info.exports);
  render();
  byId('editor-title').focus({ preventScroll: true });
  byId('editor').scrollIntoView({ behavior: 'smooth', block: 'start' });
}

// After a reload: the run that was open, or the one of the command line.
export async function reopen(state) {
  let kept = null;
  try {
    kept = JSON.parse(sessionStorage.getItem('jaxinv-studio open'));
  } catch {
    kept = null;
  }
  const known = kept && (kept.id === 'given' ? state.given : state.runs.some((own) => own.id === kept.id && own.state === 'finished'));
  if (known) await open(kept);
  else if (state.given) await open({ id: 'given', title: state.given });
}

const allEdits = () => Object.fromEntries(info.identities.map((_, i) => [i, history.edit(i)]));

function change(next, moving = '', draft = false) {
  history.set(identity(), next, moving);
  render(draft);
}

function render(draft = false) {
  sliders.show(edit());
  showSteps();
  showFaces();
  for (const radio of document.querySelectorAll('input[name="region"]')) {
    radio.checked = radio.value === (edit().mask ? 'mask' : edit().part);
  }
  showMask(edit().mask);
  byId('undo').disabled = !history.past.length;
  byId('redo').disabled = !history.future.length;
  byId('reset').disabled = !edit().steps.length && !edit().part && !edit().mask;
  viewer.ask(identity(), edit(), draft);
  if (!draft) saving.refresh();
}

// --- Sliders and the sequence ---

const controlOf = (name) => info.controls.find((own) => own.name === name);

// The edit with another strength of a step; 0 takes the step away.
function withStep(name, strength) {
  const { steps } = edit();
  if (!strength) return { ...edit(), steps: steps.filter(([own]) => own !== name) };
  if (!steps.some(([own]) => own === name)) return { ...edit(), steps: [...steps, [name, strength]] };
  return { ...edit(), steps: steps.map((step) => (step[0] === name ? [name, strength] : step)) };
}

function buildSliders() {
  sliders.build(byId('sliders'), info.controls, {
    move: (name, strength, draft) => change(withStep(name, strength), name, draft),
    set: (name, strength) => change(withStep(name, strength)),
    rest: () => history.rest(),
    strip: (control) => strips.strengths(address(), identity(), edit(), control, (value) =>
      change(withStep(control.name, value))),
  });
}

function showSteps() {
  const { steps } = edit();
  const items = steps.map(([name, strength], i) => {
    const control = controlOf(name);
    const title = control ? control.title : name;
    const text = control ? `${title} ${effect(control, strength)}` : title;
    const swap = (by) => () => {
      const next = [...steps];
      [next[i], next[i + by]] = [next[i + by], next[i]];
      change({ ...edit(), steps: next });
    };
    const act = (label, text_, action, disabled) =>
      el('button', { className: 'small', onclick: action, disabled, 'aria-label': `${label} ${title}` }, text_);
    return el('li', {}, el('span', {}, text),
      act('Earlier:', '\u2191', swap(-1), i === 0),
      act('Later:', '\u2193', swap(1), i === steps.length - 1),
      act('Remove', 'Remove', () => change({ ...edit(), steps: steps.filter((_, j) => j !== i) })));
  });
  byId('steps').replaceChildren(...(items.length ? items : [el('li', { className: 'none note' }, 'No edit yet; move a slider.')]));
}

// --- Faces ---

function buildFaces() {
  const parent = byId('identities');
  parent.hidden = info.identities.length < 2;
  parent.replaceChildren(...info.identities.map((own, i) =>
    el('button', { onclick: () => look(i) },
      el('img', { src: `${address()}/targets/${i}`, alt: '' }), own.name)));
}

function showFaces() {
  [...byId('identities').children].forEach((node, i) =>
    node.setAttribute('aria-pressed', String(i === identity())));
}

function look(i) {
  history.look(i);
  overlay.clearPoints();
  saving.links(address(), info.exports);
  render();
}

// --- Regions ---

function buildRegions() {
  const names = [['', 'Everything'], ...info.parts.map((name) => [name, name[0].toUpperCase() + name.slice(1)]), ['mask', 'Painted']];
  const legend = byId('regions').firstElementChild;
  byId('regions').replaceChildren(legend, ...names.map(([value, text]) =>
    el('label', { className: 'check' },
      el('input', { type: 'radio', name: 'region', value, onchange: () => chooseRegion(value) }), text)));
}

function showMask(id) {
  if (id === painted) return;
  painted = id;
  const known = masks.get(id);
  overlay.setMask(known ? known.slice() : new Uint8Array(info.grid ** 2), false);
}

function chooseRegion(value) {
  if (value !== 'mask') {
    change({ ...edit(), part: value, mask: '' });
  } else if (lastMask) {
    change({ ...edit(), part: '', mask: lastMask });
  } else {
    byId('regions').querySelector('input[value=""]').checked = true;
    document.querySelector('input[name="tool"][value="brush"]').checked = true;
    setTool('brush');
    byId('overlay').focus();
    announce('Paint the region first.');
  }
}

async function maskPainted(mask) {
  if (!mask.some((x) => x)) {
    if (edit().mask) change({ ...edit(), mask: '' });
    return;
  }
  const now = mask.slice();
  const found = await postBytes(`${address()}/mask`, now);
  masks.set(found.mask, now);
  painted = lastMask = found.mask;
  change({ ...edit(), part: '', mask: found.mask });
}

function setTool(name) {
  byId('points-panel').hidden = name !== 'points';
  byId('brush-panel').hidden = name !== 'brush';
  document.querySelector(`input[name="tool"][value="${name}"]`).checked = true;
  document.querySelector('.stage').classList.toggle('tool', name !== 'look');
  overlay.setTool(name);
}

// --- Searches: drags and texts ---

function pointsChanged(complete) {
  byId('drag').disabled = complete.length === 0 || search !== null;
}

const complete = () => overlay.points.filter((point) => point[2] !== null);

async function startDrag() {
  const steps = Math.min(300, Math.max(1, Math.round(Number(byId('drag-steps').value)) || 60));
  await find({ kind: 'drag', points: complete(), mask: edit().mask, steps }, byId('drag-state'));
  overlay.clearPoints();
}

async function startText() {
  await find({ kind: 'text', text: byId('text').value, steps: 60 }, byId('text-state'));
  byId('text').value = '';
}

async function find(asked, line) {
  const mine = { run, identity: identity(), edit: edit() };
  const started = await post(`${address()}/search`, { ...asked, identity: mine.identity, edit: mine.edit });
  search = started.id;
  byId('drag').disabled = true;
  byId('drag-stop').hidden = false;
  try {
    await follow(mine, started.id, line);
  } finally {
    search = null;
    byId('drag-stop').hidden = true;
    pointsChanged(complete());
  }
}

async function follow(mine, id, line) {
  const place = `/api/runs/${mine.run}/searches/${id}`;
  let shown = 0;
  let state = null;
  for (;;) {
    state = await get(place);
    const left = state.distance === null ? ''
      : state.kind === 'drag' ? `, ${state.distance.toFixed(1)} pixels to go` : `, difference ${state.distance.toFixed(3)}`;
    line.textContent = `Step ${state.step} of ${state.steps}${left}`;
    if (state.points.length) overlay.movePoints(state.points);
    if (state.state === 'failed') throw new Error(state.error);
    if (state.state === 'done') break;
    if (state.kind === 'drag' && state.step >= shown + 5) {
      shown = state.step;
      const made = await getPicture(`${place}/picture`);
      if (made) show(byId('after'), made);
    }
    await new Promise((resolve) => { setTimeout(resolve, 300); });
  }
  line.textContent += '. Done.';
  if (mine.run !== run) return;
  info.controls.push(state.control);
  buildSliders();
  history.set(mine.identity, { ...mine.edit, steps: [...mine.edit.steps, [state.control.name, 1]] });
  render();
}
