// A filmstrip: all strengths of an edit, or one edit on all faces.

import { picture, show } from './api.js';
import { byId, el, effect, trouble } from './dom.js';

const COUNT = 7; // strengths
let turn = 0; // of the strip that is shown; an older one stops

export function start() {
  byId('strip-close').addEventListener('click', close);
}

export function close() {
  turn += 1;
  byId('strip-box').hidden = true;
}

export function strengths(address, identity, edit, control, choose) {
  // 0 is in the middle, or at the start of a range without negative strengths.
  const { low, high } = control;
  const half = (COUNT - 1) / 2;
  const values = Array.from({ length: COUNT }, (_, i) => {
    if (low >= 0) return (high * i) / (COUNT - 1);
    return i < half ? (low * (half - i)) / half : (high * (i - half)) / half;
  });
  const others = edit.steps.filter(([name]) => name !== control.name);
  const cells = values.map((value) => ({
    identity,
    label: effect(control, value),
    edit: { ...edit, steps: value ? [...others, [control.name, value]] : others },
    choose: () => choose(value),
  }));
  fill(address, `${control.title}, by strength`, cells);
}

export function faces(address, identities, edits, choose) {
  const cells = identities.map((own, i) => ({
    identity: i,
    label: own.name,
    edit: edits[i],
    choose: () => choose(i),
  }));
  fill(address, 'The same edit on every face', cells);
}

async function fill(address, title, cells) {
  turn += 1;
  const mine = turn;
  byId('strip-title').textContent = title;
  byId('strip-box').hidden = false;
  const images = cells.map((cell) => el('img', { alt: '' }));
  byId('strip').replaceChildren(...cells.map((cell, i) =>
    el('button', { onclick: cell.choose }, images[i], cell.label)));
  byId('strip-box').scrollIntoView({ behavior: 'smooth', block: 'nearest' });
  // One at a time: the picture above comes first.
  for (let i = 0; i < cells.length; i += 1) {
    try {
      const made = await picture(`${address}/render`, {
        identity: cells[i].identity, edit: cells[i].edit, draft: true, size: 288, place: `strip ${i}`,
      });
      if (mine !== turn) return;
      if (made) show(images[i], made);
    } catch (error) {
      if (mine === turn) trouble(error);
    }
  }
}
