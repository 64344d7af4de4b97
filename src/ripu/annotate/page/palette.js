// The list of classes: colour, name, letter and an example from the answers so far.

import { isLight } from "./view.js";

export const VOID = 255;
const EXAMPLE_PX = 32;
const MANY = 14;

export class Palette {
  #place;
  #classes = [];
  #byLabel = new Map();
  #examples = new Map();  // label -> what its picture shows
  letters = new Map();  // letter -> label

  constructor(place) { this.#place = place; }

  set(classes, voidKey) {
    const about = classes.map(({ id, name, color, key }) => ({ label: id, name, color, letter: key.toUpperCase() }));
    this.#classes = [...about, { label: VOID, name: "void", color: [0, 0, 0], letter: (voidKey || "v").toUpperCase() }];
    this.#byLabel = new Map(this.#classes.map((one) => [one.label, { ...one, css: `rgb(${one.color.join(" ")})`, isLight: isLight(one.color) }]));
    this.letters = new Map([...this.#classes].reverse().map(({ letter, label }) => [letter.toLowerCase(), label]));
    this.#examples.clear();
    this.#place.classList.toggle("many", classes.length > MANY);
    this.#place.replaceChildren(...about.map((one) => this.#button(one)));
  }

  // What is known of a label: {name, letter, css, isLight}.
  of = (label) => this.#byLabel.get(label) || { name: `class ${label}`, letter: "?", css: "rgb(128 128 128)", isLight: true };

  // Name the labels of an answer: "road", or "road 6, sidewalk 3".
  describe(labels) {
    const counts = new Map();
    for (const label of labels) counts.set(label, (counts.get(label) || 0) + 1);
    if (counts.size === 1) return this.of(labels[0]).name;
    return [...counts].map(([label, count]) => `${this.of(label).name} ${count}`).join(", ");
  }

  swatch(label) {
    const made = document.createElement("span");
    made.className = "swatch";
    made.style.backgroundColor = this.of(label).css;
    return made;
  }

  mark({ armed = null, given = null, proposed = null }) {
    for (const button of this.#place.children) {
      const label = Number(button.dataset.label);
      button.classList.toggle("armed", label === armed);
      button.classList.toggle("given", label === given);
      button.classList.toggle("proposed", label === proposed);
    }
  }

  // Show an example of each class that has one.
  async illustrate(classes, pictures) {
    for (const { id, example } of classes) {
      const name = example && `${example.number}:${example.row}:${example.column}`;
      if (!name || this.#examples.has(id)) continue;
      this.#examples.set(id, name);
      const canvas = this.#place.querySelector(`[data-label="${id}"] canvas`);
      const half = EXAMPLE_PX / 2;
      try {
        const bitmap = await pictures.crop(example.number, Math.max(0, example.row - half), Math.max(0, example.column - half), EXAMPLE_PX, EXAMPLE_PX);
        canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
        canvas.classList.add("filled");
        bitmap.close();
      } catch {
        this.#examples.delete(id);  // tried again later
      }
    }
  }

  #button({ label, name, letter }) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "choice";
    button.dataset.label = label;
    button.setAttribute("aria-keyshortcuts", letter);
    const key = document.createElement("kbd");
    key.textContent = letter;
    const text = document.createElement("span");
    text.className = "name";
    text.textContent = name.replaceAll("_", " ");
    const example = Object.assign(document.createElement("canvas"), { width: EXAMPLE_PX, height: EXAMPLE_PX });
    example.setAttribute("aria-hidden", "true");
    button.append(key, this.swatch(label), text, example);
    return button;
  }
}
