// The canvas over the picture: points to drag, and the brush of the painted region.

import { announce, byId } from './dom.js';

const REACH = 0.025; // how near a point is taken, in sides of the picture
let grid = 128;
let tool = 'look';
let cursor = [0.5, 0.5];
let byKeys = false;
let held = null; // the point that moves: [index, 0 = handle or 2 = target]
let painting = false;
let callbacks = { points: () => {}, mask: () => {} };

export const points = []; // [x, y, to x, to y], to x = null until it is set
export let mask = new Uint8Array(grid * grid);

export function start(given) {
  callbacks = given;
  const canvas = byId('overlay');
  canvas.addEventListener('pointerdown', down);
  canvas.addEventListener('pointermove', move);
  for (const kind of ['pointerup', 'pointercancel']) canvas.addEventListener(kind, up);
  canvas.addEventListener('keydown', key);
  canvas.addEventListener('blur', () => { byKeys = false; draw(); });
  new ResizeObserver(draw).observe(canvas);
  byId('mask-clear').addEventListener('click', () => setMask(new Uint8Array(grid * grid), true));
  byId('mask-invert').addEventListener('click', () => setMask(mask.map((x) => 255 - x), true));
  byId('points-clear').addEventListener('click', clearPoints);
}

export function setGrid(size) {
  grid = size;
  setMask(new Uint8Array(grid * grid), false);
}

export function setTool(name) {
  tool = name;
  const canvas = byId('overlay');
  canvas.hidden = tool === 'look';
  canvas.setAttribute('aria-label', tool === 'points'
    ? 'Points. Arrow keys move the cross, Enter sets a point, Backspace removes the last.'
    : 'Brush. Arrow keys move it, the space bar paints.');
  byId('view').classList.toggle('tool', tool !== 'look');
  draw();
}

export function setMask(values, tell) {
  mask = values;
  draw();
  if (tell) callbacks.mask(mask);
}

export function clearPoints() {
  points.length = 0;
  changed();
}

export function movePoints(handles) {
  handles.forEach(([x, y], i) => {
    if (points[i]) [points[i][0], points[i][1]] = [x, y];
  });
  draw();
}

const place = (event) => {
  const box = byId('overlay').getBoundingClientRect();
  const inside = (value) => Math.min(1, Math.max(0, value));
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
};

function down(event) {
  event.preventDefault();
  const canvas = byId('overlay');
  canvas.setPointerCapture(event.pointerId);
  canvas.focus({ preventScroll: true });
  byKeys = false;
  cursor = place(event);
  if (tool === 'brush') {
    painting = true;
    paint();
    return;
  }
  held = null;
  const last = points[points.length - 1];
  // A point that waits for its target gets it, however near.
  const waits = last && last[2] === null;
  if (!waits) points.forEach((point, i) => {
    for (const at of [0, 2]) {
      if (Math.hypot(point[at] - cursor[0], point[at + 1] - cursor[1]) < REACH) held = [i, at];
    }
  });
  if (!held) {
    setPoint();
    held = [points.length - 1, points[points.length - 1][2] === null ? 0 : 2];
  }
  draw();
}

function move(event) {
  cursor = place(event);
  if (painting) paint();
  else if (held) {
    const [i, at] = held;
    [points[i][at], points[i][at + 1]] = cursor;
    draw();
  } else if (tool === 'brush') draw();
}

function up() {
  if (painting) {
    painting = false;
    callbacks.mask(mask);
  }
  if (held) {
    held = null;
    changed();
  }
}

function key(event) {
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (by) {
    event.preventDefault();
    byKeys = true;
    const size = event.shiftKey ? 0.05 : 0.01;
    cursor = cursor.map((value, i) => Math.min(1, Math.max(0, value + size * by[i])));
    if (tool === 'brush' && painting) paint();
    draw();
  } else if (event.key === 'Enter' && tool === 'points') {
    event.preventDefault();
    setPoint();
    changed();
  } else if (event.key === 'Backspace' && tool === 'points') {
    event.preventDefault();
    const last = points[points.length - 1];
    if (last && last[2] !== null) [last[2], last[3]] = [null, null];
    else points.pop();
    changed();
  } else if (event.key === ' ' && tool === 'brush') {
    event.preventDefault();
    byKeys = true;
    paint();
    callbacks.mask(mask);
  }
}

// A new handle, or the target of the last one.
function setPoint() {
  const last = points[points.length - 1];
  const shown = cursor.map((value) => `${Math.round(100 * value)} %`).join(', ');
  if (last && last[2] === null) {
    [last[2], last[3]] = cursor;
    announce(`Target at ${shown}`);
  } else {
    points.push([...cursor, null, null]);
    announce(`Point at ${shown}; now its target`);
  }
}

function changed() {
  draw();
  callbacks.points(points.filter((point) => point[2] !== null));
}

function paint() {
  const radius = Number(byId('brush-size').value) * grid / 128;
  const value = byId('erase').checked ? 0 : 255;
  const [x, y] = cursor.map((own) => own * grid - 0.5);
  for (let i = Math.max(0, Math.floor(y - radius)); i <= Math.min(grid - 1, y + radius); i += 1) {
    for (let j = Math.max(0, Math.floor(x - radius)); j <= Math.min(grid - 1, x + radius); j += 1) {
      if (Math.hypot(i - y, j - x) <= radius) mask[i * grid + j] = value;
    }
  }
  draw();
}

export function draw() {
  const canvas = byId('overlay');
  if (canvas.hidden) return;
  const side = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, side, side);
  if (tool === 'brush') drawMask(context, side);
  if (tool === 'points') drawPoints(context, side);
  if (byKeys || tool === 'brush') drawCursor(context, side);
}

function drawMask(context, side) {
  const small = new OffscreenCanvas(grid, grid);
  const image = new ImageData(grid, grid);
  mask.forEach((value, i) => image.data.set([20, 180, 150, value * 0.5], 4 * i));
  small.getContext('2d').putImageData(image, 0, 0);
  context.drawImage(small, 0, 0, side, side);
}

function drawPoints(context, side) {
  const dot = (x, y, colour) => {
    context.beginPath();
    context.arc(x * side, y * side, Math.max(5, side * 0.011), 0, 7);
    context.fillStyle = colour;
    context.strokeStyle = '#fff';
    context.lineWidth = Math.max(2, side * 0.004);
    context.fill();
    context.stroke();
  };
  for (const [x, y, toX, toY] of points) {
    if (toX !== null) {
      context.beginPath();
      context.moveTo(x * side, y * side);
      context.lineTo(toX * side, toY * side);
      context.strokeStyle = '#fff';
      context.lineWidth = Math.max(2, side * 0.005);
      context.stroke();
      dot(toX, toY, '#1560bd');
    }
    dot(x, y, '#c8321e');
  }
}

function drawCursor(context, side) {
  const [x, y] = cursor.map((value) => value * side);
  context.strokeStyle = '#fff';
  context.lineWidth = 2;
  context.shadowColor = '#000';
  context.shadowBlur = 3;
  context.beginPath();
  if (tool === 'brush') context.arc(x, y, (Number(byId('brush-size').value) / 128) * side, 0, 7);
  else {
    context.moveTo(x - 12, y);
    context.lineTo(x + 12, y);
    context.moveTo(x, y - 12);
    context.lineTo(x, y + 12);
  }
  context.stroke();
  context.shadowBlur = 0;
}
