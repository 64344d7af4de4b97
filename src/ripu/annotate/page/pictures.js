// The pictures behind the questions: tiles of images at the resolution of the labels, and overviews. Tiles are shared by
// the questions of an image; they are fetched ahead and stay decoded, so that drawing never waits.

const SIDE = 256;
const MOST_TILES = 200;
const MOST_OVERVIEWS = 32;
const AT_ONCE = 6;
const RETRY_MS = 3000;

class Shelf {
  #kept = new Map();  // key -> {bitmap, problem, at}
  #most;

  constructor(most) { this.#most = most; }

  get(key) {
    const found = this.#kept.get(key);
    if (found) {
      this.#kept.delete(key);
      this.#kept.set(key, found);
    }
    return found;
  }

  set(key, value) {
    this.#kept.delete(key);
    this.#kept.set(key, value);
    while (this.#kept.size > this.#most) {
      const [oldest, { bitmap }] = this.#kept.entries().next().value;
      this.#kept.delete(oldest);
      bitmap?.close();
    }
  }
}

export class Pictures extends EventTarget {
  #api;
  #tiles = new Shelf(MOST_TILES);
  #overviews = new Shelf(MOST_OVERVIEWS);
  #waiting = new Map();  // key -> [shelf, path]
  #underway = new Set();

  constructor(api) {
    super();
    this.#api = api;
  }

  // Return the tiles of a rectangle of a question's image: {row, column, height, width, bitmap, problem}.
  tiles(question, { top, left, bottom, right }) {
    const found = [];
    const last = { row: Math.min(bottom, question.height), column: Math.min(right, question.width) };
    for (let row = SIDE * Math.floor(Math.max(top, 0) / SIDE); row < last.row; row += SIDE) {
      for (let column = SIDE * Math.floor(Math.max(left, 0) / SIDE); column < last.column; column += SIDE) {
        const height = Math.min(SIDE, question.height - row);
        const width = Math.min(SIDE, question.width - column);
        const path = `/api/image/${question.number}/crop?row=${row}&column=${column}&height=${height}&width=${width}`;
        found.push({ row, column, height, width, path, ...this.#tiles.get(path) });
      }
    }
    return found;
  }

  overview(question) { return this.#overviews.get(this.#overviewPath(question)) || {}; }

  // Fetch what is missing; isFirst: before everything else that waits.
  want(question, rectangle, isFirst = false) {
    const wanted = [
      ...this.tiles(question, rectangle).map(({ path }) => [this.#tiles, path]),
      [this.#overviews, this.#overviewPath(question)],
    ].filter(([shelf, path]) => this.#isMissing(shelf, path));
    if (isFirst && wanted.length) {
      const others = [...this.#waiting].filter(([path]) => !wanted.some(([, one]) => one === path));
      this.#waiting = new Map([...wanted.map(([shelf, path]) => [path, shelf]), ...others]);
    } else {
      for (const [shelf, path] of wanted) if (!this.#waiting.has(path)) this.#waiting.set(path, shelf);
    }
    this.#work();
  }

  crop(number, row, column, height, width) {
    return this.#api.bitmap(`/api/image/${number}/crop?row=${row}&column=${column}&height=${height}&width=${width}`);
  }

  #overviewPath(question) { return `/api/image/${question.number}/overview`; }

  #isMissing(shelf, path) {
    if (this.#underway.has(path)) return false;
    const found = shelf.get(path);
    return !found || (found.problem && performance.now() - found.at > RETRY_MS);
  }

  #work() {
    while (this.#underway.size < AT_ONCE && this.#waiting.size) {
      const [path, shelf] = this.#waiting.entries().next().value;
      this.#waiting.delete(path);
      this.#load(path, shelf);
    }
  }

  async #load(path, shelf) {
    this.#underway.add(path);
    try {
      shelf.set(path, { bitmap: await this.#api.bitmap(path) });
    } catch (problem) {
      shelf.set(path, { problem, at: performance.now() });
      setTimeout(() => this.dispatchEvent(new Event("change")), RETRY_MS + 100);  // drawing asks for it again
    }
    this.#underway.delete(path);
    this.dispatchEvent(new Event("change"));
    this.#work();
  }
}
