// One slider for each edit, with its range and unit.

import { el, effect } from './dom.js';

const GROUPS = {
  attribute: 'Edits',
  own: 'Your directions',
  found: 'Dragged, or asked for by text',
  component: 'Main directions of variation (PCA)',
};
const rows = new Map(); // name -> {input, output, clear, control}

// on.move(name, strength, draft) while a slider moves, on.rest() when it was let go, on.set(name, strength), on.strip(control)
export function build(parent, controls, on) {
  rows.clear();
  const nodes = [];
  for (const [group, title] of Object.entries(GROUPS)) {
    const members = controls.filter((control) => control.group === group);
    if (!members.length) continue;
    const open = group !== 'component' || members.length === controls.length;
    nodes.push(el('details', { className: 'group', open },
      el('summary', {}, title),
      members.map((control) => row(control, on))));
  }
  if (!nodes.length) {
    nodes.push(el('p', { className: 'note' },
      'No directions are known for this generator; start the studio with --directions=FILE.'));
  }
  parent.replaceChildren(...nodes);
}

function row(control, on) {
  const id = `slider-${control.name.replace(/[^\w-]/g, '_')}`;
  const output = el('output', { for: id });
  const input = el('input', {
    type: 'range', id, min: control.low, max: control.high, step: 'any', value: 0,
    oninput: () => on.move(control.name, snapped(), true),
    onchange: () => {
      on.move(control.name, snapped(), false);
      on.rest();
    },
    onblur: () => on.rest(),
  });
  const snapped = () => {
    const value = Number(input.value);
    return Math.abs(value) < control.step / 2 ? 0 : value;
  };
  // step="any" keeps what a pointer gives; keys go by the step of the control.
  input.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (by === undefined && event.key !== 'Home' && event.key !== 'End') return;
    event.preventDefault();
    let value = Number(input.value) + (by || 0) * control.step;
    if (event.key === 'Home') value = control.low;
    if (event.key === 'End') value = control.high;
    input.value = Math.min(control.high, Math.max(control.low, value));
    on.move(control.name, snapped(), true);
  });
  input.addEventListener('keyup', (event) => {
    if (event.key.startsWith('Arrow') || /^(Page|Home|End)/.test(event.key)) on.move(control.name, snapped(), false);
  });
  const strip = el('button', {
    className: 'small', onclick: () => on.strip(control), 'aria-label': `Strengths of ${control.title}`, title: 'Pictures of all strengths',
  }, 'Strengths');
  const clear = el('button', {
    className: 'small', onclick: () => on.set(control.name, 0), 'aria-label': `Remove ${control.title}`,
  }, '0');
  rows.set(control.name, { input, output, clear, control });
  return el('div', { className: 'slider' },
    el('label', { htmlFor: id }, control.title), output,
    el('span', {}, strip, ' ', clear),
    input,
    el('span', { className: 'ends', 'aria-hidden': 'true' },
      el('span', {}, effect(control, control.low)),
      el('span', {}, effect(control, control.high))),
    control.note && el('p', { className: 'also' }, control.note));
}

// Moves the sliders to an edit.
export function show(edit) {
  const strengths = new Map(edit.steps);
  for (const [name, { input, output, clear, control }] of rows) {
    const strength = strengths.get(name) || 0;
    if (Number(input.value) !== strength) input.value = strength;
    const text = effect(control, strength);
    output.textContent = text;
    output.classList.toggle('set', strength !== 0);
    input.setAttribute('aria-valuetext', text);
    clear.disabled = strength === 0;
  }
}
