// Drawing: the window in question enlarged, its surroundings at 1:1, and the whole image with a marker. Lengths are device
// pixels. Images are never smoothed, except the overview, and nothing is drawn over the queried pixels except the
// labels of an answer in the making.

import { UNSET } from "./draft.js";

const SCALES = [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 80, 96, 128];
const VOID = 255;

export const ratio = () => Math.max(1, Math.round(window.devicePixelRatio || 1));

// Fit a canvas to its place on the page; true if its size has changed.
export function fit(canvas) {
  const exact = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * exact));
  const height = Math.max(1, Math.round(canvas.clientHeight * exact));
  if (canvas.width === width && canvas.height === height) return false;
  Object.assign(canvas, { width, height });
  return true;
}

// The scale at which a question and a ring around it fill a canvas, moved by a number of steps.
export function scaleFor(canvas, question, steps) {
  const { top, bottom, left, right } = question.box;
  const ring = Math.max(16, Math.ceil(Math.max(bottom - top, right - left) / 2));
  const most = Math.min(canvas.width / (right - left + 2 * ring), canvas.height / (bottom - top + 2 * ring));
  let place = SCALES.findLastIndex((scale) => scale <= most);
  place = Math.min(Math.max(Math.max(place, 0) + steps, 0), SCALES.length - 1);
  return SCALES[place];
}

// Where the image lies on a canvas: the question in the middle, moved by {x, y}.
export function frame(canvas, question, scale, moved = { x: 0, y: 0 }) {
  const { top, bottom, left, right } = question.box;
  return {
    scale,
    x: Math.round(canvas.width / 2 - (scale * (left + right)) / 2 + moved.x),
    y: Math.round(canvas.height / 2 - (scale * (top + bottom)) / 2 + moved.y),
  };
}

// How much larger than 1:1 the surroundings are: an image smaller than their place would leave most of it empty.
export const enlargement = (canvas, question) =>
  (question.width * ratio() < canvas.width && question.height * ratio() < canvas.height ? 3 : 1);

// The same at 1:1 for the surroundings, but without empty space beside an image that could fill it.
export function surroundings(canvas, question) {
  const scale = ratio() * enlargement(canvas, question);
  const place = frame(canvas, question, scale);
  const within = (offset, room, length) => (length <= room ? Math.round((room - length) / 2) : Math.min(0, Math.max(room - length, offset)));
  return { scale, x: within(place.x, canvas.width, scale * question.width), y: within(place.y, canvas.height, scale * question.height) };
}

export function seen(canvas, { scale, x, y }) {
  return {
    top: Math.floor(-y / scale), left: Math.floor(-x / scale),
    bottom: Math.ceil((canvas.height - y) / scale), right: Math.ceil((canvas.width - x) / scale),
  };
}

export const toPixel = ({ scale, x, y }, point) => [Math.floor((point.y - y) / scale), Math.floor((point.x - x) / scale)];

const lit = new WeakMap();  // bitmap -> {gamma, canvas}

// Return a bitmap with its dark parts brought out, value ** (1 / gamma) in each channel.
function withGamma(bitmap, gamma) {
  if (gamma === 1) return bitmap;
  const found = lit.get(bitmap);
  if (found?.gamma === gamma) return found.canvas;
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const table = Uint8ClampedArray.from({ length: 256 }, (_, value) => 255 * (value / 255) ** (1 / gamma));
  for (let at = 0; at < image.data.length; at += 4) {
    for (let channel = at; channel < at + 3; channel++) image.data[channel] = table[image.data[channel]];
  }
  context.putImageData(image, 0, 0);
  lit.set(bitmap, { gamma, canvas });
  return canvas;
}

const WANTED = 0.4;  // mean brightness that a dark image is brought to
const found = new WeakMap();

// The gamma that makes a dark image readable; 1 for one that is bright enough.
export function ownGamma(bitmap) {
  if (!bitmap) return 1;
  if (!found.has(bitmap)) {
    const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    context.drawImage(bitmap, 0, 0, 32, 32);
    const { data } = context.getImageData(0, 0, 32, 32);
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) sum += 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
    const mean = Math.max(sum / (255 * 32 * 32), 0.02);
    const gamma = mean < WANTED ? Math.log(mean) / Math.log(WANTED) : 1;
    found.set(bitmap, Math.min(Math.round(10 * gamma) / 10, 2.6));
  }
  return found.get(bitmap);
}

// Draw the image, its dark parts brought out; return whether all of it is there.
export function drawImage(canvas, place, tiles, gamma = 1) {
  const context = canvas.getContext("2d", { alpha: false });
  context.fillStyle = "#3a3d40";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  for (const { row, column, height, width, bitmap } of tiles) {
    if (!bitmap) continue;
    context.drawImage(withGamma(bitmap, gamma), place.x + column * place.scale, place.y + row * place.scale, width * place.scale, height * place.scale);
  }
  return tiles.length > 0 && tiles.every(({ bitmap }) => bitmap);
}

// Draw a black and white outline around pixels, outside of them and of all others in `spared`.
export function drawOutline(canvas, place, question, spared, { width, dash = [] }) {
  const context = canvas.getContext("2d");
  context.save();
  for (const one of new Set([question, ...spared])) {
    const inside = new Path2D();
    inside.rect(0, 0, canvas.width, canvas.height);
    for (const [row, start, end] of runs(one)) {
      inside.rect(place.x + start * place.scale, place.y + row * place.scale, (end - start) * place.scale, place.scale);
    }
    context.clip(inside, "evenodd");
  }
  const path = new Path2D();
  for (const [top, left, bottom, right] of border(question)) {
    path.moveTo(place.x + left * place.scale, place.y + top * place.scale);
    path.lineTo(place.x + right * place.scale, place.y + bottom * place.scale);
  }
  context.lineCap = dash.length ? "butt" : "square";
  for (const [color, thickness] of [["#fff", 4 * width], ["#000", 2 * width]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.setLineDash(color === "#000" ? [] : dash);
    if (dash.length && color === "#000") continue;
    context.stroke(path);
  }
  context.restore();
}

// Ticks that point at a question from all four sides, for windows of a few pixels.
export function drawTicks(canvas, place, question, unit) {
  const context = canvas.getContext("2d");
  const { top, bottom, left, right } = question.box;
  const [x, y] = [place.x + (place.scale * (left + right)) / 2, place.y + (place.scale * (top + bottom)) / 2];
  const [halfWidth, halfHeight] = [(place.scale * (right - left)) / 2, (place.scale * (bottom - top)) / 2];
  const [near, far] = [7 * unit, 20 * unit];
  const path = new Path2D();
  for (const side of [-1, 1]) {
    path.moveTo(x + side * (halfWidth + near), y);
    path.lineTo(x + side * (halfWidth + far), y);
    path.moveTo(x, y + side * (halfHeight + near));
    path.lineTo(x, y + side * (halfHeight + far));
  }
  for (const [color, thickness] of [["#000", 4 * unit], ["#fff", 2 * unit]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.stroke(path);
  }
}

// Draw the labels of an answer in the making: letters if they fit, else a tint.
export function drawLabels(canvas, place, question, labels, classOf, unit) {
  const context = canvas.getContext("2d");
  const hasRoom = place.scale >= 13 * unit;
  const size = Math.round(Math.min(place.scale * 0.62, 24 * unit));
  labels.forEach((label, number) => {
    if (label === UNSET) return;
    const [row, column] = question.pixels[number];
    const [x, y] = [place.x + column * place.scale, place.y + row * place.scale];
    const { css, letter, isLight } = classOf(label);
    context.fillStyle = css;
    if (!hasRoom) {
      context.globalAlpha = 0.55;
      context.fillRect(x, y, place.scale, place.scale);
      context.globalAlpha = 1;
      return;
    }
    const [left, top] = [Math.round(x + (place.scale - size) / 2), Math.round(y + (place.scale - size) / 2)];
    context.fillStyle = "#fff";
    context.fillRect(left - 2 * unit, top - 2 * unit, size + 4 * unit, size + 4 * unit);
    context.fillStyle = "#000";
    context.fillRect(left - unit, top - unit, size + 2 * unit, size + 2 * unit);
    context.fillStyle = css;
    context.fillRect(left, top, size, size);
    write(context, letter, left + size / 2, top + size / 2, Math.round(size * 0.72), isLight ? "#000" : "#fff");
  });
  const path = new Path2D();
  question.pixels.forEach(([row, column], number) => {
    for (const [down, across] of [[0, 1], [1, 0]]) {
      const other = column + across < question.width ? question.places.get((row + down) * question.width + column + across) : undefined;
      if (other === undefined || labels[other] === labels[number]) continue;
      path.moveTo(place.x + (column + across) * place.scale, place.y + (row + down) * place.scale);
      path.lineTo(place.x + (column + 1) * place.scale, place.y + (row + 1) * place.scale);
    }
  });
  context.lineCap = "square";
  for (const [color, thickness] of [["#000", 4 * unit], ["#fff", 2 * unit]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.stroke(path);
  }
}

// Write the digits of the keypad into the corners of the pixels that have no label yet.
export function drawDigits(canvas, place, question, keypad, labels, unit) {
  if (place.scale < 16 * unit) return;
  const context = canvas.getContext("2d");
  const size = Math.round(Math.min(11 * unit, place.scale * 0.4));
  for (const [digit, number] of keypad) {
    if (labels[number] !== UNSET) continue;
    const [row, column] = question.pixels[number];
    const [x, y] = [place.x + column * place.scale + size * 0.65, place.y + row * place.scale + size * 0.8];
    context.lineJoin = "round";
    context.strokeStyle = "#000";
    context.lineWidth = 3 * unit;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.strokeText(String(digit), x, y);
    write(context, String(digit), x, y, size, "#fff");
  }
}

export function drawCursor(canvas, place, [row, column], side, unit) {
  const context = canvas.getContext("2d");
  const reach = Math.floor(side / 2);
  const box = [place.x + (column - reach) * place.scale, place.y + (row - reach) * place.scale, side * place.scale, side * place.scale];
  for (const [color, thickness] of [["#000", 4 * unit], ["#fff", 2 * unit]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.strokeRect(...box);
  }
}

// Draw the whole image with lines that meet at the question.
export function drawOverview(canvas, bitmap, question, shown, unit, gamma = 1) {
  const context = canvas.getContext("2d", { alpha: false });
  context.fillStyle = "#3a3d40";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const scale = Math.min(canvas.width / question.width, canvas.height / question.height);
  const [width, height] = [question.width * scale, question.height * scale];
  const [x, y] = [(canvas.width - width) / 2, (canvas.height - height) / 2];
  if (bitmap) {
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(withGamma(bitmap, gamma), x, y, width, height);
  }
  if (!shown) return;
  const { top, bottom, left, right } = question.box;
  const [atX, atY] = [x + (scale * (left + right)) / 2, y + (scale * (top + bottom)) / 2];
  const half = { x: Math.max(7 * unit, (scale * (right - left)) / 2 + 3 * unit), y: Math.max(7 * unit, (scale * (bottom - top)) / 2 + 3 * unit) };
  const path = new Path2D();
  path.rect(atX - half.x, atY - half.y, 2 * half.x, 2 * half.y);
  for (const [fromX, fromY, toX, toY] of [
    [x, atY, atX - half.x, atY], [atX + half.x, atY, x + width, atY], [atX, y, atX, atY - half.y], [atX, atY + half.y, atX, y + height],
  ]) {
    path.moveTo(fromX, fromY);
    path.lineTo(toX, toY);
  }
  for (const [color, thickness] of [["#000", 3 * unit], ["#fff", unit]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.stroke(path);
  }
}

// Draw labels of a small region as a picture of its own, e.g. a split to choose; hatched where a label is missing.
export function drawSketch(canvas, question, labels, classOf) {
  const { top, bottom, left, right } = question.box;
  const scale = Math.max(1, Math.floor(canvas.width / Math.max(right - left, bottom - top)));
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const [x, y] = [Math.floor((canvas.width - scale * (right - left)) / 2), Math.floor((canvas.height - scale * (bottom - top)) / 2)];
  labels.forEach((label, number) => {
    const [row, column] = question.pixels[number];
    const [atX, atY] = [x + (column - left) * scale, y + (row - top) * scale];
    context.fillStyle = label === UNSET ? "#8a8f94" : classOf(label).css;
    context.fillRect(atX, atY, scale, scale);
    if (scale < 10) return;
    const { letter, isLight } = label === UNSET ? { letter: "?", isLight: true } : classOf(label);
    write(context, letter, atX + scale / 2, atY + scale / 2, Math.round(scale * 0.7), isLight ? "#000" : "#fff");
  });
}

export const isLight = ([red, green, blue]) => {
  const [r, g, b] = [red, green, blue].map((part) => (part <= 10 ? part / 3294 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179;  // black on it has more contrast than white
};

export const colorOf = (label, classes) => (label === VOID ? [0, 0, 0] : classes.find(({ id }) => id === label)?.color || [128, 128, 128]);

function write(context, text, x, y, size, color) {
  context.fillStyle = color;
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, x, y + Math.round(size * 0.06));
}

const shapes = new WeakMap();

function shape(question) {
  let found = shapes.get(question);
  if (!found) {
    const isAsked = (row, column) => column >= 0 && column < question.width && question.places.has(row * question.width + column);
    const edges = [];
    const lines = [];
    for (const [row, column] of question.pixels) {
      if (!isAsked(row - 1, column)) edges.push([row, column, row, column + 1]);
      if (!isAsked(row + 1, column)) edges.push([row + 1, column, row + 1, column + 1]);
      if (!isAsked(row, column - 1)) edges.push([row, column, row + 1, column]);
      if (!isAsked(row, column + 1)) edges.push([row, column + 1, row + 1, column + 1]);
      const last = lines.at(-1);
      if (last && last[0] === row && last[2] === column) last[2] = column + 1;
      else lines.push([row, column, column + 1]);
    }
    found = { edges, lines };
    shapes.set(question, found);
  }
  return found;
}

const runs = (question) => shape(question).lines;
const border = (question) => shape(question).edges;
