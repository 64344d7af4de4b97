// What this person has answered in the round, newest last, so that Backspace goes back without limit, even after a
// refresh. Kept in IndexedDB; without it, for as long as the page is open.

const DATABASE = "ripu-annotate";
const TABLE = "past";

export class Past {
  #scope;
  #database;
  #own = [];  // {id, question, labels, client_id, group}
  #counter = 0;
  #turn = Promise.resolve();

  constructor(scope) {
    this.#scope = scope;
    this.#database = new Promise((done) => {
      try {
        const opening = indexedDB.open(DATABASE, 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore(TABLE, { keyPath: ["scope", "id"] });
        opening.onsuccess = () => done(opening.result);
        opening.onerror = () => done(null);
      } catch {
        done(null);
      }
    });
  }

  push(entry) {
    const kept = { ...entry, scope: this.#scope, id: `${Date.now()}.${String(this.#counter++).padStart(8, "0")}` };
    this.#own.push(kept);
    this.#write((table) => table.put(kept));
  }

  // Take the newest entries that belong together: one answer, or a group. Empty if there is none.
  pop() {
    const taking = this.#turn.then(() => this.#take());
    this.#turn = taking.catch(() => {});
    return taking;
  }

  drop(clientId) {
    for (const one of this.#own.filter((entry) => entry.client_id === clientId)) this.#remove(one);
    this.#own = this.#own.filter((entry) => entry.client_id !== clientId);
  }

  async #take() {
    if (!this.#own.length) this.#own = await this.#older();
    const last = this.#own.pop();
    if (!last) return [];
    const found = [last];
    while (last.group && this.#own.at(-1)?.group === last.group) found.push(this.#own.pop());
    for (const one of found) this.#remove(one);
    return found;
  }

  #remove(one) { this.#write((table) => table.delete([this.#scope, one.id])); }

  async #write(change) {
    const database = await this.#database;
    if (!database) return;
    try { change(database.transaction(TABLE, "readwrite").objectStore(TABLE)); } catch { /* kept only by the page */ }
  }

  async #older() {
    const database = await this.#database;
    if (!database) return [];
    return new Promise((done) => {
      try {
        const range = IDBKeyRange.bound([this.#scope, ""], [this.#scope, "\uffff"]);
        const reading = database.transaction(TABLE).objectStore(TABLE).getAll(range);
        reading.onsuccess = () => done(reading.result);
        reading.onerror = () => done([]);
      } catch {
        done([]);
      }
    });
  }
}
