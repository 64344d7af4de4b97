// From a key press to the name of what it does.

import { SPLITS_SHOWN } from "./draft.js";

const isField = (target) => target instanceof Element && target.closest("input, textarea, select, dialog[open]") !== null;
const isControl = (target) => target instanceof Element && target.closest("button, a, summary") !== null;

// Return the lower-case Latin letter of a key, even if the layout writes another alphabet; else null.
function letterOf(event) {
  if (/^[a-z]$/i.test(event.key)) return event.key.toLowerCase();
  if (event.key.length === 1 && event.key > "\u007f") return /^Key([A-Z])$/.exec(event.code)?.[1].toLowerCase() ?? null;
  return null;
}

function digitOf(event) {
  const found = /^(?:Digit|Numpad)([0-9])$/.exec(event.code);
  return found ? Number(found[1]) : /^[0-9]$/.test(event.key) ? Number(event.key) : null;
}

// Return {name, label?, number?, step?, mayRepeat?} or null. context: {labels: letter -> label, isDrafting, isSplitting,
// hasBrush}; a letter of a class means that class, whatever else it may stand for.
export function actionOf(event, context) {
  if (event.altKey || event.metaKey || event.isComposing || isField(event.target)) return null;
  const letter = letterOf(event);
  const label = letter === null ? undefined : context.labels.get(letter);
  if (event.ctrlKey) return label === undefined ? null : { name: "group", label };
  if (label !== undefined) return { name: event.shiftKey ? "arm" : "class", label };
  if (context.isDrafting) {
    const number = digitOf(event);
    if (number !== null) return number ? { name: "digit", number } : { name: "swap" };
    if (letter === "x") return { name: "swap" };
    if (event.key === "Tab" && context.isSplitting) return { name: "cycle", step: event.shiftKey ? -1 : 1, mayRepeat: true };
    if (context.isSplitting && event.key.startsWith("Arrow")) {
      return { name: "cycle", step: { ArrowRight: 1, ArrowLeft: -1, ArrowDown: SPLITS_SHOWN, ArrowUp: -SPLITS_SHOWN }[event.key], mayRepeat: true };
    }
    if (event.key === "Escape") return { name: "cancel" };
    if (event.key === "[" || event.key === "]") return { name: "brush", step: event.key === "[" ? -1 : 1, mayRepeat: true };
    if (context.hasBrush && event.key.startsWith("Arrow")) {
      const [row, column] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      return { name: "walk", row, column, mayRepeat: true };
    }
    if (context.hasBrush && event.key === " " && !isControl(event.target)) return { name: "dab" };
  }
  if ((event.key === "Enter" || event.key === " ") && isControl(event.target)) return null;
  switch (event.key) {
    case "Backspace": return { name: "undo" };
    case " ": return { name: "accept" };
    case "Enter": return { name: context.isDrafting ? "confirm" : "gather" };
    case "Escape": return { name: "cancel" };
    case "ArrowRight": case "ArrowDown": return { name: "move", step: 1 };
    case "ArrowLeft": case "ArrowUp": return { name: "move", step: -1 };
    case "+": case "=": return { name: "zoom", step: 1, mayRepeat: true };
    case "-": case "_": return { name: "zoom", step: -1, mayRepeat: true };
    case ".": case ",": return { name: "light", step: event.key === "." ? 1 : -1, mayRepeat: true };
    case "?": return { name: "help" };
    default:
  }
  if (letter === "u") return { name: "unsure" };
  if (letter === "h") return { name: "overlays" };
  return null;
}
