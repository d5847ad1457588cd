// Starts the page, and follows the state of the session while something is at work.

import { get } from './api.js';
import { guarded, trouble } from './dom.js';
import * as editor from './editor.js';
import * as inversions from './inversions.js';
import * as photographs from './photographs.js';

let timer = 0;
let reading = Promise.resolve();

// Reads the state and shows it; one request at a time, in the order of the calls.
function refresh() {
  reading = reading.catch(() => {}).then(async () => {
    const state = await get('/api/state');
    photographs.show(state);
    inversions.show(state);
    schedule(state);
    return state;
  });
  return reading;
}

function schedule(state) {
  clearTimeout(timer);
  const busy = state.photographs.some((own) => own.state === 'reading')
    || state.runs.some((run) => ['waiting', 'running', 'stopping'].includes(run.state));
  timer = setTimeout(follow, busy ? 1000 : 15000);
}

// A poll that fails says so, and goes on: the studio may be started again.
async function follow() {
  try {
    await refresh();
  } catch (error) {
    trouble(error);
    timer = setTimeout(follow, 5000);
  }
}

photographs.start(refresh);
inversions.start(refresh, editor.open);
editor.start();

guarded(async () => {
  const state = await refresh();
  await editor.reopen(state);
})();
