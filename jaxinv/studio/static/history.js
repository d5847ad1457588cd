// The edits of all faces of a run, with undo and redo. Kept over a reload of the page.

const EMPTY = { steps: [], part: '', mask: '' };
const LIMIT = 100;

export class History {
  constructor(key) {
    this.key = `jaxinv-studio ${key}`;
    this.past = [];
    this.future = [];
    this.present = { identity: 0, edits: {} };
    try {
      const kept = JSON.parse(sessionStorage.getItem(this.key));
      if (kept && typeof kept.identity === 'number') this.present = kept;
    } catch {
      // nothing was kept
    }
  }

  edit(identity = this.present.identity) {
    return this.present.edits[identity] || EMPTY;
  }

  // Makes a change. While one slider moves (its name in `moving`) the state before is kept once.
  set(identity, edit, moving = '') {
    if (!moving || moving !== this.moving) this.remember();
    this.moving = moving;
    this.present = {
      identity: this.present.identity,
      edits: { ...this.present.edits, [identity]: edit },
    };
    this.keep();
  }

  setAll(edits) {
    this.remember();
    this.moving = '';
    this.present = { identity: this.present.identity, edits };
    this.keep();
  }

  // The slider rests: its next move is a change of its own.
  rest() {
    this.moving = '';
  }

  // Another face is shown; not a change of an edit.
  look(identity) {
    this.present = { ...this.present, identity };
    this.keep();
  }

  remember() {
    this.past.push(this.present);
    if (this.past.length > LIMIT) this.past.shift();
    this.future = [];
  }

  undo() {
    if (!this.past.length) return false;
    this.future.push(this.present);
    this.present = this.past.pop();
    this.moving = '';
    this.keep();
    return true;
  }

  redo() {
    if (!this.future.length) return false;
    this.past.push(this.present);
    this.present = this.future.pop();
    this.moving = '';
    this.keep();
    return true;
  }

  keep() {
    try {
      sessionStorage.setItem(this.key, JSON.stringify(this.present));
    } catch {
      // full or forbidden: the page works without
    }
  }
}
