// The list of inversions: progress, time left, intermediate pictures, stop, resume, open.

import { getPicture, post, remove, show as showPicture } from './api.js';
import { announce, byId, duration, el, fill, guarded } from './dom.js';

const STAGES = {
  start: 'Loading the generator and compiling',
  project: 'Step 1 of 2: finding the code of the face',
  tune: 'Step 2 of 2: tuning the generator',
  measure: 'Measuring and writing the result',
};
let refresh = () => {};
let open = () => {};
const parts = new Map(); // id -> the changing nodes of its row
const seen = new Map(); // id -> last state, for announcements

export function start(onChange, onOpen) {
  refresh = onChange;
  open = onOpen;
}

export function show(state) {
  const runs = state.runs.map((run) => ({ ...run }));
  if (state.given) runs.unshift({ id: 'given', title: state.given, state: 'finished', given: true, error: '' });
  byId('runs-section').hidden = runs.length === 0;
  fill(byId('runs'), [...runs].reverse(), (run) => `${run.id} ${run.state}`, row);
  for (const run of runs) update(run);
}

function row(run) {
  const text = el('p', { className: 'note' });
  const bar = el('progress', { max: 1, value: 0, 'aria-label': `Progress of ${run.title}` });
  const previews = el('div', { className: 'previews' });
  parts.set(run.id, { text, bar, previews, shown: '' });
  const act = (name, label, action, primary) =>
    el('button', { className: primary ? 'primary' : '', onclick: guarded(action), 'aria-label': `${label}: ${run.title}` }, name);
  const tell = (path) => async () => {
    await post(`/api/runs/${run.id}/${path}`);
    await refresh();
  };
  const busy = ['running', 'waiting'].includes(run.state);
  const buttons = [
    run.state === 'finished' && act('Edit', 'Edit', () => open(run), true),
    busy && act('Stop', 'Stop', tell('stop')),
    run.state === 'stopping' && act('Stop at once', 'Stop at once', tell('stop')),
    ['stopped', 'failed'].includes(run.state) && act('Resume', 'Resume', tell('resume'), true),
    !run.given && !busy && run.state !== 'stopping' && act('Delete', 'Delete', async () => {
      if (!window.confirm(`Delete the inversion of ${run.title}?`)) return;
      await remove(`/api/runs/${run.id}`);
      await refresh();
    }),
  ];
  return el('li', {},
    el('div', {},
      el('div', { className: 'title' }, run.title),
      text,
      run.state !== 'finished' && bar,
      previews),
    el('div', { className: 'row' }, buttons));
}

function update(run) {
  const own = parts.get(run.id);
  const progress = run.progress || {};
  own.bar.value = progress.fraction || 0;
  own.text.className = run.state === 'failed' ? 'bad' : 'note';
  own.text.textContent = words(run, progress);
  const before = seen.get(run.id);
  if (before && before !== run.state) announce(`${run.title}: ${words(run, progress)}`);
  seen.set(run.id, run.state);
  const stamp = `${progress.stage} ${progress.step} ${progress.pictures}`;
  if (progress.pictures && stamp !== own.shown) {
    own.shown = stamp;
    pictures(run, own, progress.pictures);
  }
}

function words(run, progress) {
  if (run.given) return 'The run that the studio was opened with.';
  if (run.state === 'finished') return `Finished, ${run.faces} ${run.faces === 1 ? 'face' : 'faces'}.`;
  if (run.state === 'failed') return run.error;
  if (run.state === 'waiting') return progress.ahead > 1 ? `Waits for ${progress.ahead - 1} others.` : 'Waits for its turn.';
  const steps = progress.steps ? `, ${progress.step} of ${progress.steps}` : '';
  const stage = `${STAGES[progress.stage] || ''}${steps}`;
  if (run.state === 'stopped') return `Stopped. ${stage}. Resume goes on from there.`;
  if (run.state === 'stopping') return 'Stops after the steps at work, and saves its state \u2026';
  const left = progress.seconds_left === null || progress.seconds_left === undefined
    ? '' : `, about ${duration(progress.seconds_left)} left`;
  const distance = typeof progress.distance === 'number' ? `, difference (LPIPS) ${progress.distance.toFixed(3)}` : '';
  return `${stage}${distance}${left}.`;
}

async function pictures(run, own, count) {
  while (own.previews.children.length < count) {
    const place = own.previews.children.length + 1;
    own.previews.append(el('img', { alt: `Face ${place} so far` }));
  }
  for (let i = 0; i < count; i += 1) {
    try {
      showPicture(own.previews.children[i], await getPicture(`/api/runs/${run.id}/preview/${i}`));
    } catch {
      return; // the run went on or away
    }
  }
}
