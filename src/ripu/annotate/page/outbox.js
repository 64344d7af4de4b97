// Answers on their way to the server. Each is kept in localStorage from the key press until the server has it on its
// disk, so that a refresh, a lost server or a sleeping laptop loses nothing. A second delivery is harmless: the server
// knows an answer by its client_id. An undo never overtakes its answer.

const PREFIX = "ripu-annotate:";
const MOST_ANSWERS = 100;
const MOST_LABELS = 50000;
const GATHER_MS = 60;
const LONGEST_WAIT_MS = 10000;
const DISK_FULL_MS = 4000;
const REFUSED = [400, 404, 422];

export const newName = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Outbox extends EventTarget {
  #api;
  #run;
  #channel;
  #items = new Map();  // key -> {kind, round, by, classes, answer | client_id, qid}, in the order in which they were made
  #aside = new Map();  // the same, with a reason: answers that the server cannot take
  #answered = new Set();
  #timer = 0;
  #busy = false;
  #failures = 0;
  #counter = 0;
  #single = false;
  #tab = newName().slice(0, 6);

  state = "saved";  // saved, saving, offline, full, closed, locked
  message = "";
  isKept = true;  // false if the browser refuses to store anything

  constructor(api, run) {
    super();
    this.#api = api;
    this.#run = run;
    this.#items = this.#read("out");
    this.#aside = this.#read("aside");
    for (const item of this.#items.values()) this.#note(item);
    if (!this.isEmpty) this.state = "saving";  // left over from before a refresh
    if (typeof BroadcastChannel === "function") {
      this.#channel = new BroadcastChannel(`${PREFIX}${run}`);
      this.#channel.onmessage = ({ data }) => this.#hear(data);
      this.#channel.postMessage({ kind: "hello" });
    }
    addEventListener("online", () => this.retry());
    addEventListener("pagehide", () => this.#lastChance());
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
  }

  get count() { return this.pending.length; }

  get pending() { return [...this.#items.values()].filter((item) => item.kind === "answer"); }

  get isEmpty() { return this.#items.size === 0; }

  get aside() { return [...this.#aside.values()]; }

  // The questions that were answered here, saved or not: a reply under way may still ask them.
  get qids() { return this.#answered; }

  add(scope, answer) {
    this.#keep({ kind: "answer", ...scope, qid: answer.qid, answer });
    this.#tell({ kind: "answered", qid: answer.qid, client_id: answer.client_id });
  }

  undo(scope, qid, clientId) {
    this.#keep({ kind: "undo", ...scope, qid, client_id: clientId });
    this.#tell({ kind: "undone", qid, client_id: clientId });
  }

  // Try at once, e.g. when the computer has woken up.
  retry() {
    if (!this.isEmpty && this.state !== "locked") this.#schedule(0);
  }

  unlock() {
    this.state = "saving";
    this.retry();
  }

  // Keep what is waiting: the round is closed.
  hold() {
    if (this.isEmpty || this.state === "locked") return;
    this.state = "closed";
    this.#report();
  }

  // Put answers to another round or to other classes aside.
  sort(round, classes, reason) {
    let moved = 0;
    for (const [key, item] of [...this.#items]) {
      if (item.round === round && (!item.classes || !classes || item.classes === classes)) continue;
      this.#putAside(key, item, reason(item));
      moved += item.kind === "answer";
    }
    this.#report();
    return moved;
  }

  discardAside() {
    for (const key of this.#aside.keys()) this.#forget("aside", key);
    this.#aside.clear();
    this.#report();
  }

  // Wait until everything is saved, or until it is clear that it cannot be for now.
  async settled() {
    this.retry();
    while (!this.isEmpty && ["saved", "saving"].includes(this.state)) {
      await new Promise((done) => this.addEventListener("change", done, { once: true }));
    }
    return this.isEmpty;
  }

  #note({ kind, qid }) { kind === "answer" ? this.#answered.add(qid) : this.#answered.delete(qid); }

  #keep(item) {
    this.#note(item);
    const key = `${Date.now()}.${String(this.#counter++).padStart(8, "0")}.${this.#tab}`;
    this.#items.set(key, item);
    this.#store("out", key, item);
    if (this.state === "saved") this.state = "saving";
    this.#report();
    if (!this.#timer && !this.#busy && this.state === "saving") this.#schedule(GATHER_MS);
  }

  #schedule(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => { this.#timer = 0; this.#send(); }, wait);
  }

  async #send() {
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (!this.isEmpty) {
        const batch = this.#batch();
        try {
          await this.#deliver(batch);
        } catch (problem) {
          if (!this.#handle(problem, batch)) return;
          continue;
        }
        this.#acknowledge(batch.map(([key]) => key));
        this.#tell({ kind: "saved", keys: batch.map(([key]) => key) });
        this.#failures = 0;
        this.#single = false;
        this.state = this.isEmpty ? "saved" : "saving";
        this.message = "";
        this.#report();
      }
    } finally {
      this.#busy = false;
    }
    if (this.isEmpty) {
      this.state = "saved";
      this.#report();
    }
  }

  #batch() {
    const found = [];
    let labels = 0;
    for (const [key, item] of this.#items) {
      const first = found.length ? found[0][1] : item;
      const fits = item.kind === "answer" && first.kind === "answer" && item.by === first.by &&
        item.round === first.round && item.classes === first.classes;
      labels += item.answer?.labels?.length || 0;
      if (found.length && (!fits || this.#single || labels > MOST_LABELS || found.length >= MOST_ANSWERS)) break;
      found.push([key, item]);
    }
    return found;
  }

  async #deliver(batch, keepalive = false) {
    const [, first] = batch[0];
    if (first.kind === "undo") return this.#api.post("/api/undo", { by: first.by, client_id: first.client_id }, keepalive);
    const { by, round, classes } = first;
    const body = { by, round, answers: batch.map(([, item]) => item.answer) };
    if (classes) body.classes = classes;
    return this.#api.post("/api/answers", body, keepalive);
  }

  // Return whether to continue at once.
  #handle(problem, batch) {
    const { status, message } = problem;
    this.message = message;
    if (REFUSED.includes(status)) {
      if (batch.length > 1) {  // find the one that is refused
        this.#single = true;
        return true;
      }
      const [[key, item]] = batch;
      this.#putAside(key, item, message);
      this.#report();
      if (item.kind === "answer") this.#emit("refused", item);
      return true;
    }
    if (status === 413 && batch.length > 1) {
      this.#single = true;
      return true;
    }
    if (status === 401) this.state = "locked";
    else if (status === 423) this.state = "closed";
    else if (status === 507) this.state = "full";
    else this.state = "offline";
    if (status !== 401 && status !== 423) {
      this.#failures += 1;
      this.#schedule(status === 507 ? DISK_FULL_MS : Math.min(LONGEST_WAIT_MS, 500 * 2 ** this.#failures));
    }
    this.#report();
    if (status === 409 || status === 423) this.#emit("moved", problem);
    if (status === 401) this.#emit("locked", problem);
    return false;
  }

  #acknowledge(keys) {
    for (const key of keys) {
      this.#items.delete(key);
      this.#forget("out", key);
    }
  }

  #putAside(key, item, reason) {
    this.#items.delete(key);
    this.#forget("out", key);
    if (item.kind !== "answer") return;
    this.#answered.delete(item.qid);
    this.#aside.set(key, { ...item, reason });
    this.#store("aside", key, { ...item, reason });
  }

  // The page is being left: send what is waiting without holding the page up. What does not arrive stays stored.
  #lastChance() {
    if (this.isEmpty || this.#busy || this.state === "locked") return;
    const batch = this.#batch();
    this.#deliver(batch, true).then(() => this.#acknowledge(batch.map(([key]) => key)), () => {});
  }

  #hear(data) {
    if (data.kind === "hello") this.#tell({ kind: "here" });
    if (data.kind === "hello" || data.kind === "here") this.#emit("tab", data);
    if (data.kind === "saved") {
      for (const key of data.keys) this.#items.delete(key);
      this.#report();
    }
    if (data.kind !== "answered" && data.kind !== "undone") return;
    this.#note({ kind: data.kind === "answered" ? "answer" : "undo", qid: data.qid });
    this.#emit(data.kind, data);
  }

  #tell(data) { this.#channel?.postMessage(data); }

  #emit(kind, detail) { this.dispatchEvent(Object.assign(new Event(kind), { detail })); }

  #report() { this.#emit("change"); }

  #name(place, key = "") { return `${PREFIX}${place}:${this.#run}:${key}`; }

  #read(place) {
    const start = this.#name(place);
    const found = [];
    try {
      for (let number = 0; number < localStorage.length; number++) {
        const name = localStorage.key(number);
        if (!name.startsWith(start)) continue;
        try { found.push([name.slice(start.length), JSON.parse(localStorage.getItem(name))]); } catch { /* not ours */ }
      }
    } catch {
      this.isKept = false;
    }
    return new Map(found.sort(([one], [other]) => (one < other ? -1 : 1)));
  }

  #store(place, key, item) {
    try {
      localStorage.setItem(this.#name(place, key), JSON.stringify(item));
    } catch {
      this.isKept = false;
    }
  }

  #forget(place, key) {
    try { localStorage.removeItem(this.#name(place, key)); } catch { /* nothing was stored */ }
  }
}
