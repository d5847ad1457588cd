// The picture: before and after, and the newest wish only is asked for.

import { picture, show } from './api.js';
import { byId, trouble } from './dom.js';

let address = ''; // of the run
let wanted = null; // {identity, edit, draft} that waits
let working = false;
let beforeOf = '';

export function start() {
  const view = byId('view');
  byId('split').addEventListener('change', setSplit);
  byId('cut').addEventListener('input', () => view.style.setProperty('--cut', `${byId('cut').value}%`));
  const hold = byId('hold');
  const held = (on) => () => view.classList.toggle('held', on);
  for (const kind of ['pointerdown']) hold.addEventListener(kind, held(true));
  for (const kind of ['pointerup', 'pointerleave', 'blur', 'pointercancel']) hold.addEventListener(kind, held(false));
  hold.addEventListener('keydown', (event) => {
    if (event.key === ' ' || event.key === 'Enter') held(true)();
  });
  hold.addEventListener('keyup', held(false));
}

export function setSplit() {
  const on = byId('split').checked;
  byId('view').classList.toggle('split', on);
  byId('cut').hidden = !on;
}

export function open(run) {
  address = `/api/runs/${run}`;
  beforeOf = '';
  wanted = null;
  show(byId('before'), null);
  show(byId('after'), null);
}

// Asks for the picture of an edit. While one is made only the newest wish is kept, so a slider
// costs one synthesis at a time, and the last one is of full quality.
export function ask(identity, edit, draft) {
  wanted = { identity, edit, draft, of: address };
  if (!working) run();
}

async function run() {
  working = true;
  const late = setTimeout(() => { byId('busy').hidden = false; }, 250);
  try {
    while (wanted) {
      const now = wanted;
      wanted = null;
      await before(now);
      const made = await picture(`${now.of}/render`, { ...now, of: undefined, place: 'picture' });
      if (made && now.of === address) {
        show(byId('after'), made);
        await byId('after').decode().catch(() => {});
        byId('after').dataset.region = now.edit.part || now.edit.mask;
        byId('after').dataset.draft = String(Boolean(now.draft));
        byId('after').dataset.shown = JSON.stringify(now.edit.steps);
      }
    }
  } catch (error) {
    trouble(error);
  } finally {
    clearTimeout(late);
    byId('busy').hidden = true;
    working = false;
    if (wanted) run();
  }
}

// The unedited picture, or the photograph; it is made once for a face.
async function before(now) {
  const photograph = byId('with-photograph').checked;
  const key = `${now.of} ${now.identity} ${photograph}`;
  if (key === beforeOf) return;
  let made;
  if (photograph) made = `${now.of}/targets/${now.identity}`;
  else made = await picture(`${now.of}/render`, { identity: now.identity, edit: { steps: [] }, place: 'before' });
  if (!made || now.of !== address) return;
  show(byId('before'), made);
  beforeOf = key;
}
