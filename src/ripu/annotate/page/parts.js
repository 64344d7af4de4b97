// Pieces of the page that know nothing of questions: texts, notices, panels, fields.

export const $ = (id) => document.getElementById(id);
export const count = (number) => number.toLocaleString("en");
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
export const element = (tag, text, properties = {}) => Object.assign(document.createElement(tag), { textContent: text ?? "", ...properties });
export const stored = (place, key) => { try { return place.getItem(key); } catch { return null; } };
export const store = (place, key, value) => { try { place.setItem(key, value); } catch { /* not kept */ } };

// Announce a text to screen readers.
export function say(text) {
  $("announcement").textContent = text;
}

// Show a notice with an optional button; an empty text removes it.
export function note(name, text, label, action) {
  const old = $("notices").querySelector(`[data-name="${name}"]`);
  if (!text) return old?.remove();
  if (old?.querySelector("span").textContent === text) return;
  const notice = element("div", "", { className: "notice" });
  notice.dataset.name = name;
  notice.append(element("span", text));
  if (label) {
    const button = element("button", label, { type: "button" });
    button.addEventListener("click", action);
    notice.append(button);
  }
  old ? old.replaceWith(notice) : $("notices").append(notice);
}

// Show a text with buttons in the place of the question: [text, action, isMain].
export function showPanel(title, content, buttons = []) {
  $("desk").hidden = $("actions").hidden = true;
  $("panel").hidden = false;
  const row = element("div", "", { className: "row" });
  for (const [text, action, isMain] of buttons) {
    const button = element("button", text, { type: "button", className: isMain ? "main" : "" });
    button.addEventListener("click", action);
    row.append(button);
  }
  const body = element("div");
  body.append(...content, ...(buttons.length ? [row] : []));
  const isNew = $("panel-title").textContent !== title || $("panel-body").textContent !== body.textContent;
  $("panel-title").textContent = title;
  if (isNew) $("panel-body").replaceChildren(...body.childNodes);  // else the focus stays in it
  for (const name of ["qid", "ready", "draft"]) delete document.body.dataset[name];
}

// A form of one line of text.
export function fields(label, name, action, type = "text") {
  const input = element("input", "", { type, autocomplete: "off", spellcheck: false, required: true, maxLength: 400 });
  const wrapped = element("label", label);
  wrapped.append(input);
  const form = element("form");
  const button = element("button", name, { className: "main" });
  const row = element("div", "", { className: "row" });
  row.append(button);
  form.append(wrapped, row);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) action(input.value.trim());
  });
  setTimeout(() => input.focus());
  return form;
}

// Numbers with their names below each other: [number, name].
export function tallyList(entries) {
  const list = element("dl", "", { className: "tally" });
  for (const [number, name] of entries) list.append(element("dt", count(Math.max(0, number))), element("dd", name));
  return list;
}

// Let the browser save answers as a file.
export function download(name, answers) {
  const link = element("a", "", { download: `${name}-answers.json`, href: URL.createObjectURL(new Blob([JSON.stringify(answers, null, 1)], { type: "application/json" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
