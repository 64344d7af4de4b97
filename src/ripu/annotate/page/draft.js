// An answer in the making to a question of several pixels: a straight-line split, or single pixels one by one.
// Nothing here knows the page; a label is a class id, 255 void, or UNSET.

export const UNSET = -1;
export const SPLITS_SHOWN = 9;  // one per digit

export const isMixed = (labels) => labels.some((label) => label !== labels[0]);

// Map the keys of a keypad (7 8 9 on top) to pixels of a window of at most 3 x 3; null for any other region.
export function keypadOf(pixels) {
  const rows = pixels.map(([row]) => row);
  const columns = pixels.map(([, column]) => column);
  const [top, left] = [Math.min(...rows), Math.min(...columns)];
  if (pixels.length < 2 || Math.max(...rows) - top > 2 || Math.max(...columns) - left > 2) return null;
  return new Map(pixels.map(([row, column], place) => [7 - 3 * (row - top) + column - left, place]));
}

export class Draft {
  armed = null;  // the class that painting gives
  split = null;  // {first, second, at, isSwapped}
  labels;
  #splits;
  #keypad;
  #earlier = [];

  constructor(question) {
    this.labels = new Array(question.pixels.length).fill(UNSET);
    this.#splits = question.splits || [];
    this.#keypad = question.keypad;
  }

  get isPainted() { return this.labels.some((label) => label !== UNSET); }

  get left() { return this.split ? 0 : this.labels.filter((label) => label === UNSET).length; }

  get splits() { return this.#splits; }

  // The splits on the page of nine that holds the chosen one: their first number.
  get firstShown() { return this.split ? SPLITS_SHOWN * Math.floor(this.split.at / SPLITS_SHOWN) : 0; }

  shown() { return this.split ? this.#splitLabels(this.split.at) : this.labels; }

  // Return the labels of a split, for its picture; the second class may still be missing.
  splitLabels(at) {
    if (this.split) return this.#splitLabels(at);
    return [...this.#splits[at]].map((side) => (side === "0" ? this.armed : UNSET));
  }

  // Shift + letter: paint with this class from now on.
  arm(label) {
    this.#remember();
    if (this.split) {
      this.labels = this.shown();
      this.split = null;
    }
    this.armed = label;
  }

  // A letter: the second class of a split, or the class of all remaining pixels. Return the finished labels, or null.
  choose(label) {
    if (this.split) {
      this.#remember();
      this.split = { ...this.split, second: label };
      return null;
    }
    if (this.isPainted) {
      if (!this.left) {
        this.arm(label);
        return null;
      }
      return this.labels.map((one) => (one === UNSET ? label : one));
    }
    if (label === this.armed) return this.labels.map(() => label);
    if (this.#splits.length) {
      this.#remember();
      this.split = { first: this.armed, second: label, at: 0, isSwapped: false };
    }
    return null;
  }

  // A digit: take a split, or toggle a pixel. Return the finished labels, or null.
  digit(number) {
    if (this.split) return this.pick(this.firstShown + number - 1);
    const place = this.#keypad?.get(number);
    if (place !== undefined) this.toggle(place);
    return null;
  }

  pick(at) { return at < this.#splits.length ? this.#splitLabels(at) : null; }

  // Mark another split; a whole page on leads to its first one, and after the last page comes the first.
  cycle(step) {
    if (!this.split) return;
    const count = this.#splits.length;
    let at = (this.split.at + step + count) % count;
    if (Math.abs(step) === SPLITS_SHOWN) {
      const pages = Math.ceil(count / SPLITS_SHOWN);
      at = SPLITS_SHOWN * ((this.firstShown / SPLITS_SHOWN + Math.sign(step) + pages) % pages);
    }
    this.split = { ...this.split, at };
  }

  swap() {
    if (this.split) this.split = { ...this.split, isSwapped: !this.split.isSwapped };
  }

  toggle(place) {
    this.#remember();
    this.labels = [...this.labels];
    this.labels[place] = this.labels[place] === this.armed ? UNSET : this.armed;
  }

  startStroke() { this.#remember(); }

  paint(places, label = this.armed) {
    this.labels = [...this.labels];
    for (const place of places) this.labels[place] = label;
  }

  // Return the finished labels, or null while a pixel has no class.
  finished() { return this.left ? null : [...this.shown()]; }

  // Go one step back; false if there was none.
  back() {
    const earlier = this.#earlier.pop();
    if (!earlier || earlier.armed === null) return false;
    Object.assign(this, earlier);
    return true;
  }

  #splitLabels(at) {
    const { first, second, isSwapped } = this.split;
    return [...this.#splits[at]].map((side) => ((side === "0") !== isSwapped ? first : second));
  }

  #remember() { this.#earlier.push({ armed: this.armed, split: this.split, labels: this.labels }); }
}
