'use strict';
// Blind comparisons: order and sides come from the study's seed and the rater's number, so that a
// result file is enough to repeat what was shown. Nothing leaves the page but the downloaded file.
(() => {
  const study = JSON.parse(document.getElementById('data').textContent);
  const at = (id) => document.getElementById(id);

  // mulberry32: 32-bit state, numbers in [0, 1).
  const random = (state) => () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  const shuffle = (items, draw) => {
    for (let i = items.length - 1; i > 0; i--) {
      const j = Math.floor(draw() * (i + 1));
      [items[i], items[j]] = [items[j], items[i]];
    }
    return items;
  };

  const key = `jaxinv-preference-${study.study}`;
  const stored = () => {
    try {
      const found = JSON.parse(localStorage.getItem(key));
      return found && found.study === study.study && Array.isArray(found.answers) ? found : null;
    } catch {
      return null; // no storage, or not ours
    }
  };
  const page = location.href.split(/[?#]/)[0];
  const store = () => {
    try {
      localStorage.setItem(key, JSON.stringify(result));
    } catch { /* a page opened without storage goes on without */ }
  };

  const asked = new URLSearchParams(location.search).get('rater');
  const number = /^\d{1,9}$/.test(asked ?? '') ? Number(asked)
    : crypto.getRandomValues(new Uint32Array(1))[0];
  const earlier = stored();
  const result = earlier && (asked === null || earlier.rater === number) ? earlier : {
    version: study.version, study: study.study, rater: number,
    started: new Date().toISOString(), answers: [],
  };

  const draw = random((study.seed ^ Math.imul(result.rater, 2654435761)) | 0);
  const always = new Set(study.always);
  const pairs = shuffle(study.trials.filter((t) => !always.has(t.id)), draw);
  const checks = study.trials.filter((t) => always.has(t.id));
  const kept = study.per_rater ? pairs.slice(0, study.per_rater) : pairs;
  const trials = shuffle([...kept, ...checks], draw).map(
    (trial) => ({ ...trial, left: draw() < 0.5 ? 0 : 1 }));

  let shownAt = 0;
  let running = false;

  const show = () => {
    const i = result.answers.length;
    running = i < trials.length;
    at('start').hidden = true;
    at('trial').hidden = !running;
    at('end').hidden = running;
    if (!running) {
      at('download').focus();
      return;
    }
    const trial = trials[i];
    at('original').src = study.pictures[trial.original];
    at('left-image').src = study.pictures[trial.pair[trial.left]];
    at('right-image').src = study.pictures[trial.pair[1 - trial.left]];
    at('place').textContent = `${i + 1} of ${trials.length}`;
    at('progress').max = trials.length;
    at('progress').value = i;
    at('back').disabled = i === 0;
    document.activeElement.blur();
    shownAt = performance.now();
  };

  const choose = (side) => {
    if (!running) return;
    const trial = trials[result.answers.length];
    result.answers.push({
      trial: trial.id, left: trial.left, choice: side === 'left' ? trial.left : 1 - trial.left,
      ms: Math.round(performance.now() - shownAt),
    });
    store();
    show();
  };

  const back = () => {
    if (!running || !result.answers.length) return;
    result.answers.pop();
    store();
    show();
  };

  const download = () => {
    const text = JSON.stringify(result, null, 1);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
    link.download = `preference-${study.study}-${result.rater}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    at('saved').textContent = `Saved as ${link.download}.`;
    at('next').hidden = false; // not before, so that no answers are lost
  };

  const startAnew = () => {
    try {
      localStorage.removeItem(key);
    } catch { /* nothing is stored */ }
    location.replace(page); // without ?rater=, which was the number of this rater
  };

  at('count').textContent = trials.length;
  if (result.answers.length) at('begin').textContent = 'Go on';
  at('begin').addEventListener('click', show);
  at('left').addEventListener('click', () => choose('left'));
  at('right').addEventListener('click', () => choose('right'));
  at('back').addEventListener('click', back);
  at('download').addEventListener('click', download);
  at('again').addEventListener('click', startAnew);
  document.addEventListener('keydown', (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const side = { ArrowLeft: 'left', 1: 'left', ArrowRight: 'right', 2: 'right' }[event.key];
    if (running && side) choose(side);
    else if (running && event.key === 'Backspace') back();
    else return;
    event.preventDefault();
  });
  if (result.answers.length >= trials.length) show(); // finished before: its file, or a new rater
  else at('begin').focus();
})();
