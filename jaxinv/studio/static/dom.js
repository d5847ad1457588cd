// Small helpers. Text from outside only ever becomes text nodes, never markup.

export const byId = (id) => document.getElementById(id);

// el('li', {className: 'card', onclick: f, 'aria-label': 'x'}, 'text', child, ...)
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name in node && !name.startsWith('aria-')) node[name] = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false) node.append(child);
  }
  return node;
}

// Replaces the children, and leaves them where the same key is shown already.
export function fill(parent, items, keyOf, make) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  const nodes = items.map((item) => {
    const key = keyOf(item);
    const node = old.get(key) || make(item);
    node.dataset.key = key;
    return node;
  });
  const same = nodes.length === parent.children.length && nodes.every((n, i) => n === parent.children[i]);
  if (!same) parent.replaceChildren(...nodes);
}

export function announce(text) {
  byId('status').textContent = text;
}

export function trouble(error) {
  const box = byId('trouble');
  box.textContent = error ? String(error.message || error) : '';
  box.hidden = !error;
}

// Runs an async handler; what it throws is shown in one sentence.
export function guarded(action) {
  return async (...given) => {
    try {
      trouble(null);
      return await action(...given);
    } catch (error) {
      if (error.name !== 'AbortError') trouble(error);
      return undefined;
    }
  };
}

export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, '0')} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
}

// '+13.3°' of a strength of a control
export function effect(control, strength) {
  const value = strength * control.effect;
  const digits = Math.abs(control.effect * (control.high - control.low)) >= 20 ? 1 : 2;
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return `0${control.unit}`;
  return `${value < 0 ? '\u2212' : '+'}${text}${control.unit}`;
}
