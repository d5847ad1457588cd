// Puts edited faces back into their photograph, and saves what there is.

import { picture, save, show } from './api.js';
import { announce, byId, el, guarded } from './dom.js';

let current = () => null; // {address, identity, edits, pastes, name}

export function start(given) {
  current = given;
  byId('paste').addEventListener('click', guarded(async () => {
    const now = current();
    byId('paste').disabled = true;
    try {
      const made = await picture(`${now.address}/paste`, asked(now));
      if (!made) return;
      show(byId('pasted'), made);
      byId('pasted').hidden = false;
      byId('paste-note').textContent = 'Shown small; it is saved at the full size of the photograph.';
      announce('The face was put back into the photograph.');
    } finally {
      byId('paste').disabled = !current().pastes;
    }
  }));
  byId('save-photograph').addEventListener('click', guarded(() => {
    const now = current();
    return save(`${now.address}/picture`, { ...asked(now), what: 'photograph', kind: byId('kind').value });
  }));
  byId('save-face').addEventListener('click', guarded(() => {
    const now = current();
    return save(`${now.address}/picture`, { identity: now.identity, edit: now.edits[now.identity], kind: byId('kind').value });
  }));
  byId('save-edit').addEventListener('click', guarded(async () => {
    const now = current();
    const own = { identity: now.identity, edit: now.edits[now.identity] };
    await save(`${now.address}/edit`, own);
    if (own.edit.mask) await save(`${now.address}/region`, own);
  }));
}

const asked = (now) => ({ identity: now.identity, edits: now.edits, mask: byId('paste-mask').value });

// The face that is shown has changed: an older picture is not that of its edit any more.
export function refresh() {
  const now = current();
  byId('paste').disabled = byId('save-photograph').disabled = !now.pastes;
  byId('pasted').hidden = true;
  byId('paste-note').textContent = now.pastes ? ''
    : 'The photograph of this face is not there any more, so only the face can be saved.';
}

export function links(address, exports) {
  const link = (href, text) => el('li', {}, el('a', { href, download: '' }, text));
  byId('links').replaceChildren(
    el('li', {}, el('a', { href: `${address}/report`, target: '_blank', rel: 'noopener' }, 'Report of the run')),
    link(`${address}/folder.zip`, 'Folder of the run (ZIP)'),
    ...exports.map((own) => link(`${address}/export/${own.name}?identity=${current().identity}`, own.title)));
}
