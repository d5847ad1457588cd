// Uploads, the faces that were found, and which of them are chosen.

import { post, remove, upload } from './api.js';
import { announce, byId, el, fill, guarded, trouble } from './dom.js';

const unchosen = new Set(); // 'PHOTOGRAPH/INDEX' of faces that are left out
let photographs = [];
let limits = { bytes: 0, photographs: 0, faces: 0 };
let refresh = () => {};

export function start(onChange) {
  refresh = onChange;
  const input = byId('files');
  input.addEventListener('change', () => {
    send([...input.files]);
    input.value = '';
  });
  const drop = byId('drop');
  for (const kind of ['dragenter', 'dragover']) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add('over');
    });
  }
  for (const kind of ['dragleave', 'drop']) {
    drop.addEventListener(kind, () => drop.classList.remove('over'));
  }
  // A file dropped beside the box is not opened instead of the page.
  window.addEventListener('dragover', (event) => event.preventDefault());
  window.addEventListener('drop', (event) => {
    event.preventDefault();
    send([...event.dataTransfer.files]);
  });
  byId('invert-form').addEventListener('submit', (event) => {
    event.preventDefault();
    invert();
  });
}

const send = guarded(async (files) => {
  const failures = [];
  for (const file of files) {
    announce(`Uploading ${file.name}`);
    try {
      if (file.size > limits.bytes) {
        throw new Error(`${file.name} is larger than ${Math.round(limits.bytes / 2 ** 20)} MB.`);
      }
      await upload(file);
    } catch (error) {
      failures.push(error.message);
    }
    await refresh();
  }
  if (failures.length) trouble(failures.join(' '));
});

const invert = guarded(async () => {
  const faces = {};
  for (const own of photographs) {
    const chosen = chosenOf(own);
    if (chosen.length) faces[own.id] = chosen;
  }
  await post('/api/runs', { faces, budget: byId('budget').value });
  announce('The inversion was started.');
  await refresh();
  byId('runs-section').scrollIntoView({ behavior: 'smooth', block: 'nearest' });
});

const chosenOf = (own) =>
  own.faces.map((face) => face.index).filter((index) => !unchosen.has(`${own.id}/${index}`));

export function show(state) {
  photographs = state.photographs;
  limits = state.limits;
  byId('limits').textContent =
    `Up to ${limits.photographs}, of at most ${Math.round(limits.bytes / 2 ** 20)} MB each: JPEG, PNG, WebP, HEIC and others.`;
  const budget = byId('budget');
  fill(budget, Object.entries(state.budgets), (entry) => entry[0], ([value, text]) => el('option', { value }, text));
  fill(byId('photographs'), photographs, (own) => `${own.id} ${own.state}`, card);
  count();
}

function count() {
  const total = photographs.reduce((sum, own) => sum + chosenOf(own).length, 0);
  byId('invert-form').hidden = !photographs.some((own) => own.faces.length);
  byId('invert').disabled = total === 0 || total > limits.faces;
  byId('invert').textContent = total > limits.faces
    ? `Choose at most ${limits.faces} faces`
    : `Invert ${total} ${total === 1 ? 'face' : 'faces'}`;
}

function card(own) {
  const boxes = new Map();
  const photo = own.state === 'ready'
    ? el('div', { className: 'photo' },
      el('img', { src: `/api/photographs/${own.id}/shown`, alt: `Photograph ${own.name}` }),
      own.faces.map((face) => {
        const box = el('span', { className: 'box', 'aria-hidden': 'true' });
        const [left, top, right, bottom] = face.box;
        box.style.left = `${(100 * left) / own.width}%`;
        box.style.top = `${(100 * top) / own.height}%`;
        box.style.width = `${(100 * (right - left)) / own.width}%`;
        box.style.height = `${(100 * (bottom - top)) / own.height}%`;
        boxes.set(face.index, box);
        return box;
      }))
    : el('div', { className: 'photo' });
  const take = guarded(async () => {
    await remove(`/api/photographs/${own.id}`);
    await refresh();
  });
  const faces = own.faces.map((face) => {
    const key = `${own.id}/${face.index}`;
    const mark = () => boxes.get(face.index).classList.toggle('chosen', !unchosen.has(key));
    const box = el('input', {
      type: 'checkbox',
      checked: !unchosen.has(key),
      'aria-label': `Face ${face.index} of ${own.name}`,
      onchange: () => {
        if (box.checked) unchosen.delete(key);
        else unchosen.add(key);
        mark();
        count();
      },
    });
    mark();
    return el('label', {}, box, el('img', { src: `/api/photographs/${own.id}/face_${face.index}`, alt: '' }));
  });
  const notes = [...own.notes, ...own.faces.map((face) => face.warning).filter(Boolean)];
  return el('li', { className: 'card' },
    photo,
    el('div', { className: 'name' },
      el('span', {}, own.name),
      el('button', { className: 'small', onclick: take, 'aria-label': `Remove ${own.name}` }, 'Remove')),
    own.state === 'reading' && el('p', { className: 'note' }, 'Looking for faces \u2026'),
    own.state === 'unusable' && el('p', { className: 'bad' }, own.error),
    faces.length > 0 && el('div', { className: 'faces' }, faces),
    notes.map((text) => el('p', { className: 'note' }, text)));
}
