// Requests to the server: the token goes with each of them, and every failure is an ApiError with a status.

const TOKEN = "ripu-annotate:token";
const PATIENCE_MS = 15000;

export class ApiError extends Error {
  // status: that of the response, or 0 without one.
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Api {
  #token = null;

  // Take the token out of the address, so that it does not stay in the history, or the one this tab already has.
  constructor() {
    const given = location.hash.slice(1);
    if (given) {
      this.token = given;
      history.replaceState(null, "", location.pathname + location.search);
    } else {
      try { this.#token = sessionStorage.getItem(TOKEN); } catch { /* storage is switched off */ }
    }
  }

  get token() { return this.#token; }

  set token(value) {
    this.#token = value;
    try { sessionStorage.setItem(TOKEN, value); } catch { /* asked for again after a refresh */ }
  }

  async fetch(path, options = {}) {
    const headers = { ...options.headers, Authorization: `Bearer ${this.#token}` };
    let answer;
    try {
      answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), ...options, headers });
    } catch {
      throw new ApiError(0, "The server does not respond.");
    }
    if (answer.ok) return answer;
    let message = `The server responded with status ${answer.status}.`;
    try { message = (await answer.json()).error || message; } catch { /* no JSON: keep the plain sentence */ }
    throw new ApiError(answer.status, message);
  }

  async get(path) { return this.#read(await this.fetch(path)); }

  async post(path, body, keepalive = false) {
    return this.#read(await this.fetch(path, {
      method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, keepalive,
    }));
  }

  async bitmap(path) {
    const answer = await this.fetch(path);
    try {
      return await createImageBitmap(await answer.blob());
    } catch {
      throw new ApiError(422, "The picture is damaged.");
    }
  }

  async #read(answer) {
    try {
      return await answer.json();
    } catch {
      throw new ApiError(0, "The server's response was cut off.");
    }
  }
}
