// The questions that the page knows, in the order in which it got them, and which of them is asked now.

// Precompute what drawing and painting need.
export function prepare(question) {
  const rows = question.pixels.map(([row]) => row);
  const columns = question.pixels.map(([, column]) => column);
  const box = {
    top: rows.reduce((one, other) => Math.min(one, other)), bottom: rows.reduce((one, other) => Math.max(one, other)) + 1,
    left: columns.reduce((one, other) => Math.min(one, other)), right: columns.reduce((one, other) => Math.max(one, other)) + 1,
  };
  const places = new Map(question.pixels.map(([row, column], place) => [row * question.width + column, place]));
  return { ...question, box, places };
}

export function placeOf(question, row, column) {
  if (column < 0 || column >= question.width) return undefined;
  return question.places.get(row * question.width + column);
}

// Return whether two questions share a pixel or an edge of one.
export function touch(one, other) {
  if (one.number !== other.number) return false;
  const [a, b] = [one.box, other.box];
  if (a.top > b.bottom || b.top > a.bottom || a.left > b.right || b.left > a.right) return false;
  return other.pixels.some(([row, column]) => [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]
    .some(([down, across]) => placeOf(one, row + down, column + across) !== undefined));
}

export class Line {
  #items = [];  // {question, answer: null | {client_id, labels}, wasSeen}
  #byName = new Map();
  index = -1;  // Infinity: past the end, also of questions that come later

  get current() { return this.#items[this.index] || null; }

  get open() { return this.#items.filter((item) => !item.answer); }

  get numSkipped() { return this.open.filter((item) => item.wasSeen && item !== this.current).length; }

  find(qid) { return this.#byName.get(qid) || null; }

  // Append questions that are not known yet; return how many there were.
  add(questions, without) {
    const fresh = questions.filter(({ qid }) => !this.#byName.has(qid) && !without.has(qid));
    for (const question of fresh) this.#append({ question: prepare(question), answer: null, wasSeen: false });
    return fresh.length;
  }

  // The next open questions, the current one first.
  ahead(count) {
    const found = [];
    for (let place = Math.max(this.index, 0); place < this.#items.length && found.length < count; place++) {
      if (!this.#items[place].answer) found.push(this.#items[place]);
    }
    return found;
  }

  // Move to the next open question, or else to the first that was skipped; false if there is none.
  advance() {
    const place = this.#next(this.index + 1);
    const target = place < 0 ? this.#next(0) : place;
    this.index = target < 0 ? Infinity : target;
    return target >= 0;
  }

  get hasNext() { return this.#next(this.index + 1) >= 0; }

  // Move by one question, answered or not; false at the ends.
  step(by) {
    const target = Math.min(this.index, this.#items.length) + by;
    if (target < 0 || target >= this.#items.length) return false;
    this.index = target;
    return true;
  }

  // Go to a question, which is put in front of the current one if it is not known.
  goTo(question) {
    let item = this.find(question.qid);
    if (!item) {
      item = { question: prepare(question), answer: null, wasSeen: true };
      this.#byName.set(question.qid, item);
      this.#items.splice(Math.max(this.index, 0), 0, item);
    }
    this.index = this.#items.indexOf(item);
    return item;
  }

  touching(item) {
    const near = Math.max(0, this.index - 200);
    return this.#items.slice(near, this.index + 400)
      .filter((other) => other !== item && !other.answer && touch(item.question, other.question));
  }

  #append(item) {
    this.#byName.set(item.question.qid, item);
    this.#items.push(item);
  }

  #next(start) { return this.#items.findIndex((item, place) => place >= start && !item.answer); }
}
