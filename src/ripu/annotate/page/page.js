// The page: asks one question after another. Keys act at once on what is in memory; the network catches up.

import { Api } from "./api.js";
import { Draft, SPLITS_SHOWN, isMixed, keypadOf } from "./draft.js";
import { actionOf } from "./input.js";
import { Line, placeOf } from "./line.js";
import { Outbox, newName } from "./outbox.js";
import { Palette, VOID } from "./palette.js";
import { $, count, download, element, fields, note, plural, say, sentence, showPanel, store, stored, tallyList } from "./parts.js";
import { Past } from "./past.js";
import { Pictures } from "./pictures.js";
import * as view from "./view.js";

const AHEAD = 24;
const MOST_ASKED = 64;
const POLL_MS = 5000;
const STATS_MS = 10000;
const NAME = "ripu-annotate:name";
const ZOOM = "ripu-annotate:zoom";
const LIGHT = "ripu-annotate:light";
const MOST_LIGHT = 4;
const PAUSE_SECONDS = 60;

const api = new Api();
const pictures = new Pictures(api);
const palette = new Palette($("classes"));
let run = null;
let me = null;
let outbox = null;
let past = null;
let line = new Line();
let queue = "round";  // or "conflicts"
let draft = null;
let isGathering = false;  // the next letter answers the touching windows, too
let isArming = false;  // the next tap on a class is a Shift + letter
let hasOverlays = true;
let zoom = Number(stored(sessionStorage, ZOOM)) || 0;
let lastGiven = "";
let light = Number(stored(sessionStorage, LIGHT)) || 0;
let moved = { x: 0, y: 0 };
let pointer = null;  // where the mouse is on the stage
let walker = null;  // where the keyboard's brush is
let shownAt = 0;
let hiddenSince = document.hidden ? performance.now() : 0;
let isReady = false;
let isRefilling = false;
let isExhausted = false;  // the server has no question that is not here
let isCapped = false;  // ... or would have, if fewer had been skipped
let waitSeconds = null;
let problem = "";
let pollTimer = 0;
let waitTimer = 0;
let ownTimes = { seconds: 0, answers: 0 };
let stats = null;  // the server's, brought up to date by what is answered here

// ---- the run

async function loadRun() {
  clearTimeout(pollTimer);
  if (!api.token) return showLocked();
  let fresh;
  try {
    fresh = await api.get("/api/run");
  } catch (failure) {
    if (failure.status === 401) return showLocked(failure.message);
    if (!run) showPanel("The server does not respond", [element("p", sentence(failure.message)), element("p", "This page tries again every few seconds. If the server was stopped, start it again: python -m ripu.annotate RUN")]);
    pollTimer = setTimeout(loadRun, POLL_MS);
    return;
  }
  fresh.id ??= `${fresh.run}:${fresh.classes_digest}`;  // what keeps answers of different runs apart
  const isOther = !run || run.round !== fresh.round || run.classes_digest !== fresh.classes_digest || run.id !== fresh.id;
  const before = run;
  run = fresh;
  $("run-name").textContent = run.run;
  document.title = `Annotate ${run.run}`;
  if (isOther || before.state !== "open") palette.set(run.classes, run.void_key);
  me = run.me ?? stored(localStorage, NAME);
  outbox ??= makeOutbox();
  if (run.state === "waiting") return showWaiting();
  $("round").textContent = `round ${run.round + 1}${run.rounds ? ` of ${run.rounds}` : ""}`;
  sortOutbox();
  if (run.state === "closed") {
    outbox.hold();
    return showClosed();
  }
  $("who").hidden = Boolean(run.me) || !me;
  $("who").textContent = me ?? "";
  if (!me) return askName();
  outbox.retry();
  if (isOther || before.state !== "open") startRound();
  else if (line.current && $("desk").hidden) show();
  else refill();
}

function startRound() {
  past = new Past(`${run.id}:${run.round}:${me}`);
  ownTimes = { seconds: 0, answers: 0 };
  stats = { questions: run.questions, answered: run.answered, unsure: run.unsure || 0, conflicts: run.conflicts || 0, left: null };
  startLine("round");
  loadStats();
}

function startLine(name) {
  queue = name;
  line = new Line();
  [draft, isGathering, isArming, isExhausted, waitSeconds, problem] = [null, false, false, false, null, ""];
  showPanel(name === "round" ? "Fetching questions…" : "Fetching conflicts…", []);
  refill();
}

const scope = () => ({ by: me, round: run.round, classes: run.classes_digest });

// ---- questions

async function refill() {
  if (isRefilling || !run || run.state !== "open" || !me || isExhausted) return;
  if (line.ahead(AHEAD + 1).length > AHEAD) return;
  isRefilling = true;
  const asked = line;
  const wanted = Math.min(MOST_ASKED, line.open.length + outbox.count + 2 * AHEAD);
  try {
    const query = new URLSearchParams({ n: wanted, by: me });
    if (queue === "conflicts") query.set("queue", "conflicts");
    const wasEmpty = outbox.isEmpty;
    const reply = await api.get(`/api/next?${query}`);
    if (asked !== line) return;
    if (reply.round !== run.round) return void loadRun();
    problem = "";
    const fresh = line.add(reply.questions, queue === "round" ? outbox.qids : new Set());
    waitSeconds = reply.wait_seconds ?? null;
    isExhausted = !fresh && wasEmpty;
    isCapped = isExhausted && reply.questions.length >= MOST_ASKED;
    if (!fresh && !wasEmpty) setTimeout(refill, 200);
  } catch (failure) {
    if (asked !== line) return;
    if ([409, 423].includes(failure.status)) return void loadRun();
    if (failure.status === 401) return void showLocked(failure.message);
    problem = failure.message;
    clearTimeout(pollTimer);
    pollTimer = setTimeout(refill, 2000);
  } finally {
    isRefilling = false;
    if (asked !== line) refill();  // for the line that has replaced it meanwhile
  }
  if (line.current) prefetch();
  else proceed();
}

// Show the next open question, or say why there is none.
function proceed() {
  if (line.advance()) show();
  else showNothing();
}

function show() {
  const item = line.current;
  item.wasSeen = true;
  item.question.keypad ??= keypadOf(item.question.pixels);
  [draft, isGathering, isArming, walker] = [null, false, false, null];
  moved = { x: 0, y: 0 };
  shownAt = performance.now();
  isReady = false;
  $("panel").hidden = true;
  $("desk").hidden = $("actions").hidden = false;
  describe(item);
  draw();
  prefetch();
  if (!line.hasNext || line.ahead(AHEAD + 1).length <= AHEAD) refill();
}

function prefetch() {
  line.ahead(AHEAD).forEach(({ question }, place) => pictures.want(question, around(question), place === 0));
}

// What is drawn of an image at the present zoom, and what the other canvases show.
function around(question) {
  const stage = view.seen($("stage"), view.frame($("stage"), question, view.scaleFor($("stage"), question, zoom), moved));
  const context = view.seen($("context"), view.surroundings($("context"), question));
  return {
    top: Math.min(stage.top, context.top), left: Math.min(stage.left, context.left),
    bottom: Math.max(stage.bottom, context.bottom), right: Math.max(stage.right, context.right),
  };
}

// ---- drawing

function draw() {
  const item = line.current;
  if (!item || $("desk").hidden) return;
  const { question } = item;
  const [stage, context, overview] = [$("stage"), $("context"), $("overview")];
  for (const canvas of [stage, context, overview]) view.fit(canvas);
  const unit = view.ratio();
  const scale = view.scaleFor(stage, question, zoom);
  const place = view.frame(stage, question, scale, moved);
  const tiles = pictures.tiles(question, view.seen(stage, place));
  const whole = pictures.overview(question);
  const gamma = view.ownGamma(whole.bitmap) * 1.25 ** light;
  view.drawImage(stage, place, tiles, gamma);
  const near = pictures.tiles(question, { top: question.box.top - 8, left: question.box.left - 8, bottom: question.box.bottom + 8, right: question.box.right + 8 });
  isReady = near.every(({ bitmap }) => bitmap) && Boolean(whole.bitmap || whole.problem);
  const failure = near.find((tile) => tile.problem)?.problem;
  $("missing").hidden = isReady;
  $("missing").textContent = failure ? `${sentence(failure.message)} ${failure.status ? "Skip it with →." : "Trying again…"}` : "Loading the picture…";
  if (!isReady || tiles.some((tile) => !tile.bitmap)) pictures.want(question, around(question), true);
  const neighbours = line.touching(item);
  if (hasOverlays) {
    for (const { question: other } of neighbours) view.drawOutline(stage, place, other, [question], { width: isGathering ? 2 * unit : unit, dash: [5 * unit, 5 * unit] });
    view.drawOutline(stage, place, question, [], { width: 2 * unit });
    const labels = draft ? draft.shown() : item.answer?.labels && isMixed(item.answer.labels) ? item.answer.labels : null;
    if (labels) view.drawLabels(stage, place, question, labels, palette.of, unit);
    if (draft && !draft.split && question.keypad) view.drawDigits(stage, place, question, question.keypad, draft.labels, unit);
    if (draft && walker) view.drawCursor(stage, place, walker, Number($("brush").value), unit);
  }
  const middle = view.surroundings(context, question);
  view.drawImage(context, middle, pictures.tiles(question, view.seen(context, middle)), gamma);
  $("context-caption").textContent = `${view.enlargement(context, question)} : 1`;
  if (hasOverlays) {
    view.drawOutline(context, middle, question, [], { width: unit });
    view.drawTicks(context, middle, question, unit);
  }
  view.drawOverview(overview, whole.bitmap, question, hasOverlays, unit, gamma);
  $("gather").hidden = !neighbours.length;
  $("gather").replaceChildren(element("kbd", "Ctrl"), ` ${neighbours.length + 1} touching`);
  $("gather").setAttribute("aria-pressed", String(isGathering));
  Object.assign(document.body.dataset, { qid: question.qid, ready: String(isReady), draft: String(Boolean(draft)) });
}

let isDrawing = false;
function redraw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => { isDrawing = false; draw(); });
}

// Bring the text around the pictures up to date.
function describe(item) {
  const { question, answer } = item;
  const [row, column] = question.pixels[0];
  const size = question.pixels.length === 1 ? "1 pixel" : `${question.pixels.length} pixels`;
  const { top, bottom, left, right } = question.box;
  const shape = question.pixels.length === (bottom - top) * (right - left) && question.pixels.length > 1 ? `${bottom - top} × ${right - left} window` : size;
  const skipped = line.numSkipped;
  $("about").textContent = `${question.image} · ${shape} at row ${row}, column ${column}${skipped ? ` · ${count(skipped)} skipped` : ""}${lastGiven ? ` · last answer: ${lastGiven}` : ""}`;
  $("stage").setAttribute("aria-label", `The asked ${shape} at row ${row}, column ${column} of ${question.image}, enlarged`);
  $("asking").textContent = question.answers ? "Which answer is right?" : question.pixels.length === 1 ? "Which class is this pixel?" : "Which class is this?";
  const suggested = answer ? null : suggestionOf(question);
  $("suggestion").hidden = !suggested;
  if (suggested) $("suggestion").replaceChildren(palette.swatch(suggested[0]), ` ${palette.describe(suggested)} `, element("kbd", "Space"), " accepts");
  const given = answer && (answer.isElsewhere ? "in another tab" : answer.labels ? palette.describe(answer.labels) : "unsure");
  const notes = [given && `answered: ${given}`, light && `brightness ${light > 0 ? "+" : "−"}${Math.abs(light)}`, !hasOverlays && "overlays hidden", question.blind && !answer && "no suggestion this time"].filter(Boolean);
  $("state").hidden = !notes.length;
  $("state").textContent = notes.join(" · ");
  palette.mark({
    armed: draft?.split ? null : draft?.armed ?? null,
    given: answer?.labels && !isMixed(answer.labels) ? answer.labels[0] : null,
    proposed: suggested && !isMixed(suggested) ? suggested[0] : null,
  });
  $("two").hidden = question.pixels.length < 2;
  $("two").setAttribute("aria-pressed", String(isArming || Boolean(draft)));
  document.querySelector(".stage").classList.toggle("paints", Boolean(draft && !draft.split));
  describeDraft(question);
  describeOthers(question);
}

function describeDraft(question) {
  $("drafting").hidden = !draft && !isArming;
  if (!draft && isArming) $("draft-text").textContent = "Choose the class of the top left pixel, or the class to paint with.";
  for (const id of ["confirm", "cancel"]) $(id).hidden = !draft;
  $("swap").hidden = !draft?.split;
  $("more").hidden = !draft?.split || draft.splits.length <= SPLITS_SHOWN;
  $("brush-label").hidden = !draft || Boolean(draft.split) || Boolean(question.keypad);
  if (!draft) return $("splits").replaceChildren();
  $("confirm").disabled = draft.left > 0;
  const name = palette.of(draft.split ? draft.split.first : draft.armed).name;
  const paint = question.keypad ? "digits or the mouse mark single pixels" : "paint with the mouse, or with the arrows and Space";
  if (draft.split) $("draft-text").textContent = `${name} | ${palette.of(draft.split.second).name}: a digit takes a split, Enter the marked one.`;
  else if (draft.isPainted) $("draft-text").textContent = draft.left ? `Painting ${name}: ${plural(draft.left, "pixel")} left; a letter gives them its class.` : "Every pixel has a class: Enter confirms.";
  else $("draft-text").textContent = `${name} | ? ${draft.splits.length ? "Press the other class for a split; " : ""}${paint}.`;
  const showsSplits = draft.splits.length && (draft.split || !draft.isPainted);
  const first = draft.firstShown;
  const places = showsSplits ? draft.splits.slice(first, first + SPLITS_SHOWN).map((_, number) => first + number) : [];
  $("splits").replaceChildren(...places.map((at) => {
    const button = element("button", "", { type: "button", className: "split", disabled: !draft.split });
    button.dataset.split = at;
    const canvas = element("canvas", "", { width: 36 * view.ratio(), height: 36 * view.ratio() });
    view.drawSketch(canvas, question, draft.splitLabels(at), palette.of);
    if (draft.split) button.append(canvas, String(at - first + 1));
    else button.append(canvas);
    button.setAttribute("aria-label", `Split ${at - first + 1}`);
    button.setAttribute("aria-pressed", String(draft.split?.at === at));
    return button;
  }));
}

function describeOthers(question) {
  const given = question.answers || [];
  $("others").hidden = !given.length;
  const list = element("ul");
  for (const { by, labels } of given) {
    const entry = element("li");
    const canvas = element("canvas", "", { width: 30 * view.ratio(), height: 30 * view.ratio() });
    if (labels) view.drawSketch(canvas, question, labels, palette.of);
    entry.append(canvas, element("b", by), labels ? palette.describe(labels) : "unsure");
    list.append(entry);
  }
  $("others").replaceChildren(element("h2", "The answers so far"), list);
}

function suggestionOf(question) {
  if (question.blind || !question.suggestion) return null;
  const { label, labels } = question.suggestion;
  return labels || new Array(question.pixels.length).fill(label);
}

// ---- answering

function seconds() {
  return (performance.now() - shownAt) / 1000;
}

function give(item, labels, options = {}) {
  if (item.answer) outbox.undo(scope(), item.question.qid, item.answer.client_id);
  const { qid } = item.question;
  const answer = {
    client_id: newName(), qid, labels, ms: Math.round(options.ms ?? 1000 * seconds()), suggestion: options.suggestion ?? null,
  };
  if (!labels) answer.unsure = true;
  if (item.question.answers) answer.resolves = true;  // it decides between answers that contradict each other
  const { places, box, keypad, ...plain } = item.question;
  lastGiven = labels ? palette.describe(labels) : "unsure";
  if (!item.answer) tally(labels, 1);
  item.answer = { client_id: answer.client_id, labels };
  outbox.add(scope(), answer);
  past.push({ question: plain, labels, client_id: answer.client_id, group: options.group ?? null });
}

function answer(labels, { isAccepted = false } = {}) {
  const item = line.current;
  if (!item) return;
  if (!isReady && labels) return say("The picture has not loaded yet: wait for it, skip it with →, or press U.");
  const { question } = item;
  const hasSuggestion = !item.answer && suggestionOf(question) !== null;
  const suggestion = question.blind ? "blind" : hasSuggestion ? (isAccepted ? "accepted" : "shown") : null;
  time(1);
  give(item, labels, { suggestion });
  say(`${labels ? palette.describe(labels) : "unsure"} ✓`);
  go();
}

// One class for this window and those that touch it.
function answerGroup(label) {
  const item = line.current;
  if (!item) return;
  if (draft) return say("Finish or cancel the split first.");
  if (!hasOverlays) return say("Show the overlays first (H): the touching windows are hidden.");
  if (!isReady) return say("The picture has not loaded yet.");
  const items = [item, ...line.touching(item)];
  const group = newName();
  const ms = (1000 * seconds()) / items.length;
  time(items.length);
  for (const one of items) {
    const { question } = one;
    const suggestion = question.blind ? "blind" : one === item && !one.answer && suggestionOf(question) ? "shown" : null;
    give(one, new Array(question.pixels.length).fill(label), { ms, group, suggestion });
  }
  say(`${palette.of(label).name} for ${plural(items.length, "window")} ✓`);
  go();
}

function go() {
  if (isCapped) isExhausted = false;
  if (line.hasNext || isExhausted || line.open.length) proceed();
  else {
    line.advance();
    refill();
    showNothing();
  }
}

function time(answers) {
  const spent = seconds();
  if (spent > PAUSE_SECONDS) return;
  ownTimes.seconds += spent;
  ownTimes.answers += answers;
}

function tally(labels, sign) {
  if (!stats || queue !== "round") return;
  stats[labels ? "answered" : "unsure"] += sign;
  if (stats.left !== null) stats.left = Math.max(0, stats.left - sign);
  showStats();
}

async function undo() {
  if (draft) {
    if (!draft.back()) [draft, walker] = [null, null];
    return update();
  }
  const atWork = past;
  const found = await atWork.pop();
  if (atWork !== past) return;
  if (!found.length) return say("Nothing to take back in this round.");
  for (const { question, labels, client_id: name } of found) {
    outbox.undo(scope(), question.qid, name);
    const known = line.find(question.qid);
    if (known && known.answer && known.answer.client_id !== name) continue;
    lastGiven = "";
    tally(labels, -1);
    if (known) known.answer = null;
  }
  line.goTo(found.at(-1).question);
  isExhausted = false;
  say(`Took back ${found.length > 1 ? plural(found.length, "answer") : found[0].labels ? palette.describe(found[0].labels) : "unsure"}.`);
  show();
}

// ---- actions

function update() {
  const item = line.current;
  if (!item) return;
  describe(item);
  draw();
}

function arm(label) {
  const { question } = line.current;
  if (question.pixels.length < 2) return say("A single pixel has one class: press the letter without Shift.");
  isArming = isGathering = false;
  draft ??= new Draft(question);
  draft.arm(label);
  update();
}

function choose(label) {
  if (isGathering) return answerGroup(label);
  if (isArming) return arm(label);
  if (!draft) return answer(new Array(line.current.question.pixels.length).fill(label));
  const labels = draft.choose(label);
  if (labels) return answer(labels);
  if (!draft.split && !draft.isPainted) say(`Paint ${palette.of(draft.armed).name} first; the letter then gives the rest its class.`);
  update();
}

const ACTIONS = {
  class: ({ label }) => choose(label),
  arm: ({ label }) => arm(label),
  group: ({ label }) => answerGroup(label),
  unsure: () => answer(null),
  undo,
  accept() {
    const suggested = line.current && !line.current.answer && !draft ? suggestionOf(line.current.question) : null;
    if (suggested) answer(suggested, { isAccepted: true });
  },
  gather() {
    if (!line.touching(line.current).length) return;
    isGathering = !isGathering;
    if (isGathering) say("The next letter answers the touching windows, too.");
    update();
  },
  confirm() {
    const labels = draft?.finished();
    if (labels) answer(labels);
    else if (draft) say(`${plural(draft.left, "pixel has", "pixels have")} no class yet.`);
  },
  cancel() {
    [draft, isArming, isGathering, walker] = [null, false, false, null];
    update();
  },
  digit({ number }) {
    const labels = draft.digit(number);
    if (labels) answer(labels);
    else update();
  },
  swap() { draft?.swap(); update(); },
  cycle({ step }) { draft?.cycle(step); update(); },
  move({ step }) {
    if (step < 0) return line.step(-1) ? show() : say("This is the first question.");
    if (line.step(1)) return show();
    isExhausted ? proceed() : refill();
  },
  zoom({ step }) {
    const [stage, { question }] = [$("stage"), line.current];
    const before = view.frame(stage, question, view.scaleFor(stage, question, zoom), moved);
    const place = view.scaleFor(stage, question, zoom + step);
    if (place === before.scale) return;
    zoom += step;
    const centre = pointer || { x: stage.width / 2, y: stage.height / 2 };
    const after = view.frame(stage, question, place);
    moved = { x: centre.x - ((centre.x - before.x) / before.scale) * place - after.x, y: centre.y - ((centre.y - before.y) / before.scale) * place - after.y };
    store(sessionStorage, ZOOM, String(zoom));
    draw();
  },
  overlays() {
    hasOverlays = !hasOverlays;
    $("overlays").setAttribute("aria-pressed", String(hasOverlays));
    update();
  },
  light({ step }) {
    light = Math.min(Math.max(light + step, -MOST_LIGHT), MOST_LIGHT);
    store(sessionStorage, LIGHT, String(light));
    update();
  },
  help() { $("help-dialog").showModal(); },
  brush({ step }) {
    $("brush").value = Number($("brush").value) + 2 * step;
    $("brush-size").textContent = `${$("brush").value} px`;
    draw();
  },
  walk({ row, column }) {
    const { question } = line.current;
    const { top, bottom, left, right } = question.box;
    walker ??= [Math.floor((top + bottom) / 2), Math.floor((left + right) / 2)];
    walker = [Math.min(Math.max(walker[0] + row, top), bottom - 1), Math.min(Math.max(walker[1] + column, left), right - 1)];
    draw();
  },
  dab() {
    if (!walker) return ACTIONS.walk({ row: 0, column: 0 });
    draft.startStroke();
    draft.paint(brushed(walker));
    update();
  },
};

// The pixels of the region under the brush.
function brushed([row, column]) {
  const { question } = line.current;
  const reach = question.keypad ? 0 : Math.floor(Number($("brush").value) / 2);
  const found = [];
  for (let down = -reach; down <= reach; down++) {
    for (let across = -reach; across <= reach; across++) {
      const place = placeOf(question, row + down, column + across);
      if (place !== undefined) found.push(place);
    }
  }
  return found;
}

function perform(action) {
  if (action.name === "help") return ACTIONS.help();
  if (action.name === "undo") return void undo();
  if (!line.current) {
    if (action.name === "move" && action.step < 0 && line.step(-1)) show();
    return;
  }
  ACTIONS[action.name]?.(action);
}

addEventListener("keydown", (event) => {
  if (!run || run.state !== "open" || !me) return;
  const action = actionOf(event, {
    labels: palette.letters, isDrafting: Boolean(draft), isSplitting: Boolean(draft?.split),
    hasBrush: Boolean(draft && !draft.split && line.current && !line.current.question.keypad),
  });
  if (!action) return;
  if ($("desk").hidden && !["undo", "move", "help"].includes(action.name)) return;
  event.preventDefault();
  if (!event.repeat || action.mayRepeat) perform(action);
});

// ---- mouse and touch

function onClick(id, action) {
  $(id).addEventListener("click", (event) => {
    if (line.current || action.name === "help" || action.name === "undo") perform(action);
    if (event.detail) $("stage").focus({ preventScroll: true });  // keys after a click are keys of the question
  });
}

for (const [id, action] of Object.entries({
  undo: { name: "undo" }, void: { name: "class", label: VOID }, unsure: { name: "unsure" }, previous: { name: "move", step: -1 },
  next: { name: "move", step: 1 }, brighter: { name: "light", step: 1 }, darker: { name: "light", step: -1 }, gather: { name: "gather" }, closer: { name: "zoom", step: 1 }, wider: { name: "zoom", step: -1 },
  overlays: { name: "overlays" }, confirm: { name: "confirm" }, swap: { name: "swap" }, more: { name: "cycle", step: SPLITS_SHOWN }, cancel: { name: "cancel" },
})) onClick(id, action);

$("help").addEventListener("click", () => ACTIONS.help());
$("two").addEventListener("click", (event) => {
  isArming = !isArming;
  update();
  if (event.detail) $("stage").focus({ preventScroll: true });
});
$("classes").addEventListener("click", (event) => {
  const button = event.target.closest(".choice");
  if (!button || !line.current) return;
  const label = Number(button.dataset.label);
  perform({ name: event.ctrlKey ? "group" : event.shiftKey ? "arm" : "class", label });
  if (event.detail) $("stage").focus({ preventScroll: true });
});
$("splits").addEventListener("click", (event) => {
  const at = event.target.closest(".split")?.dataset.split;
  const labels = at === undefined ? null : draft?.pick(Number(at));
  if (labels) answer(labels);
});
$("brush").addEventListener("input", () => ACTIONS.brush({ step: 0 }));
$("brush").addEventListener("change", () => $("stage").focus({ preventScroll: true }));
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("close", () => $("desk").hidden || $("stage").focus({ preventScroll: true }));
}

let drag = null;
const pointOf = (event) => {
  const box = $("stage").getBoundingClientRect();
  const factor = $("stage").width / box.width;
  return { x: (event.clientX - box.left) * factor, y: (event.clientY - box.top) * factor };
};
const pixelAt = (point) => view.toPixel(view.frame($("stage"), line.current.question, view.scaleFor($("stage"), line.current.question, zoom), moved), point);

$("stage").addEventListener("pointerdown", (event) => {
  if (!line.current || event.button > 1) return;
  $("stage").setPointerCapture(event.pointerId);
  const point = pointOf(event);
  const canPaint = draft && !draft.split && event.button === 0;
  drag = { paints: canPaint, from: point, last: canPaint ? pixelAt(point) : null };
  if (!canPaint) return;
  walker = null;
  if (line.current.question.keypad) {
    const place = placeOf(line.current.question, ...drag.last);
    if (place !== undefined) draft.toggle(place);
  } else {
    draft.startStroke();
    draft.paint(brushed(drag.last));
  }
  update();
});
$("stage").addEventListener("pointermove", (event) => {
  const point = pointOf(event);
  pointer = event.pointerType === "mouse" ? point : null;
  if (!drag || !line.current) return;
  if (drag.paints) {
    if (!draft) return;
    const target = pixelAt(point);
    const steps = Math.max(Math.abs(target[0] - drag.last[0]), Math.abs(target[1] - drag.last[1]));
    for (let step = 1; step <= steps; step++) {
      draft.paint(brushed([0, 1].map((axis) => Math.round(drag.last[axis] + ((target[axis] - drag.last[axis]) * step) / steps))));
    }
    drag.last = target;
    if (steps) redraw();
  } else {
    moved = { x: moved.x + point.x - drag.from.x, y: moved.y + point.y - drag.from.y };
    drag.from = point;
    redraw();
  }
});
for (const name of ["pointerup", "pointercancel"]) $("stage").addEventListener(name, () => {
  if (drag?.paints && draft) update();
  drag = null;
});
$("stage").addEventListener("pointerleave", () => { pointer = null; });
$("stage").addEventListener("wheel", (event) => {
  event.preventDefault();
  if (line.current && event.deltaY) ACTIONS.zoom({ step: event.deltaY < 0 ? 1 : -1 });
}, { passive: false });
new ResizeObserver(redraw).observe($("stage"));
new ResizeObserver(redraw).observe($("context"));
pictures.addEventListener("change", redraw);

// ---- figures and messages

async function loadStats() {
  if (!run || run.state !== "open" || !me || document.hidden) return;
  const isQuiet = outbox.isEmpty;
  try {
    const [fresh, about] = await Promise.all([api.get("/api/stats"), api.get("/api/run")]);
    if (about.round !== run.round || about.state !== run.state || about.classes_digest !== run.classes_digest) return void loadRun();
    if (isQuiet && outbox.isEmpty) stats = fresh;
    else stats = { ...stats, left: stats.left ?? fresh.left, annotators: fresh.annotators, seconds_per_answer: fresh.seconds_per_answer };
    palette.illustrate(about.classes, pictures);
    showStats();
  } catch { /* the outbox says that the server is away */ }
}

function showStats() {
  $("progress").hidden = false;
  const done = stats.answered + stats.unsure + (stats.conflicts || 0);
  const left = stats.left ?? Math.max(0, stats.questions - done);
  $("bar").max = Math.max(1, stats.questions);
  $("bar").value = done;
  $("counts").replaceChildren(element("b", count(done)), ` of ${count(stats.questions)} done · `, element("b", count(left)), " left");
  const own = stats.annotators?.find(({ by }) => by === me)?.seconds_per_answer ?? null;
  const pace = ownTimes.answers >= 5 ? ownTimes.seconds / ownTimes.answers : own ?? stats.seconds_per_answer ?? null;
  $("pace").replaceChildren(...(pace === null ? [] : [element("b", pace.toFixed(1)), " s per answer"]));
  $("pace").title = "Mean time of your answers, without pauses of more than a minute";
  const hours = pace === null ? null : (pace * left) / 3600;
  $("hours").replaceChildren(...(hours === null ? [] : hours < 1 ? [element("b", count(Math.ceil(60 * hours))), " min left"] : [element("b", hours.toFixed(1)), " h left"]));
  $("queue").hidden = queue === "round" && !stats.conflicts;
  $("queue").textContent = queue === "conflicts" ? "Back to the questions" : plural(stats.conflicts || 0, "conflict");
  $("close").hidden = false;
}

function showSaved() {
  const waiting = outbox.count;
  const kept = `${plural(waiting, "answer")} kept ${outbox.isKept ? "in this browser" : "only by this page: keep it open"}`;
  const text = {
    saved: "saved", saving: `saving ${count(waiting)}`, offline: `offline, ${kept}`, full: `the server's disk is full, ${kept}`,
    closed: `the round is closed, ${kept}`, locked: `not signed in, ${kept}`,
  }[outbox.isEmpty ? "saved" : outbox.state];
  const state = outbox.isEmpty ? "saved" : outbox.state;
  const isQuiet = [state, $("saved").dataset.state].every((one) => one === "saved" || one === "saving");
  if (!isQuiet && state !== $("saved").dataset.state) say(text);  // not at each answer
  $("saved").textContent = text;
  $("saved").dataset.state = state;
  $("saved").title = outbox.message;
  const aside = outbox.aside.length;
  note("aside", aside ? `${plural(aside, "answer")} could not be saved, and ${aside === 1 ? "is" : "are"} kept in this browser.` : "", "Show them", showAside);
}

function showLocked(message = "The address of this page contains no key.") {
  showPanel("Not signed in", [
    element("p", sentence(message)),
    element("p", "Open the address that python -m ripu.annotate printed, or paste it here. Answers that are not saved yet stay in this browser."),
    fields("Address", "Sign in", (value) => {
      api.token = value.slice(value.indexOf("#") + 1);
      outbox?.unlock();
      loadRun();
    }),
  ]);
}

function askName() {
  showPanel("Who answers?", [
    element("p", "Your name is kept with your answers, so that the agreement between people can be measured."),
    fields("Name", "Start", (value) => {
      store(localStorage, NAME, value.slice(0, 80));
      me = value.slice(0, 80);
      $("who").textContent = me;
      $("who").hidden = false;
      startRound();
    }),
  ]);
}

function showWaiting() {
  showPanel("No round is open yet", [element("p", "The run has not asked anything yet. This page checks again every few seconds.")]);
  pollTimer = setTimeout(loadRun, POLL_MS);
}

function showClosed() {
  $("queue").hidden = $("close").hidden = true;
  const waiting = outbox.count;
  const content = [
    element("p", `Round ${run.round + 1} is closed. The run now learns from its answers; the next round opens here by itself.`),
    tallyList([[run.answered, "answered"], [run.unanswered ?? run.questions - run.answered - (run.unsure || 0) - (run.conflicts || 0), "unanswered"], [run.unsure || 0, "unsure"], [run.conflicts || 0, "in conflict"]]),
  ];
  if (waiting) content.push(element("p", `${plural(waiting, "answer")} of yours came too late. ${waiting === 1 ? "It is" : "They are"} kept in this browser and sent if the round is opened again (python -m ripu.annotate RUN reopen).`));
  showPanel("This round is closed", content, waiting ? [["Download as JSON", () => download(run.run, outbox.pending)]] : []);
  pollTimer = setTimeout(loadRun, POLL_MS);
}

// Say why no question is shown.
function showNothing() {
  if (problem) {
    return showPanel("Waiting for the server", [
      element("p", `${sentence(problem)} This page tries again every few seconds.`),
      element("p", outbox.isEmpty ? "All your answers are saved." : `${plural(outbox.count, "answer")} kept in this browser.`),
    ]);
  }
  if (!isExhausted) return showPanel("Fetching questions…", []);
  if (queue === "conflicts") return showPanel("No conflicts left", [], [["Back to the questions", () => startLine("round"), true]]);
  if (waitSeconds !== null) {
    clearTimeout(waitTimer);
    waitTimer = setTimeout(() => { isExhausted = false; refill(); }, 1000 * Math.min(20, Math.max(1, waitSeconds)));
    return showPanel("Nothing for you right now", [element("p", "Others are working on the remaining questions. This page checks again every 20 seconds.")], [["Close round…", askClose]]);
  }
  const about = [[stats.answered, "answered"], [stats.unsure, "unsure"], [stats.conflicts || 0, "in conflict"]];
  const buttons = [["Undo", undo], ["Close the round…", askClose, true]];
  if (stats.conflicts) buttons.unshift(["Resolve conflicts", () => startLine("conflicts")]);
  showPanel("All questions are answered", [
    element("p", "Nothing is left for you in this round. Backspace takes back the last answer; closing the round hands the answers to the run."),
    tallyList(about),
  ], buttons);
  loadStats();
}

// ---- dialogs

async function askClose() {
  $("close-text").replaceChildren(element("p", "Saving the last answers…"));
  $("close-yes").disabled = true;
  $("close-dialog").showModal();
  const isSaved = await outbox.settled();
  let fresh;
  try {
    fresh = await api.get("/api/stats");
  } catch (failure) {
    return $("close-text").replaceChildren(element("p", sentence(failure.message)));
  }
  const unanswered = fresh.unanswered ?? fresh.questions - fresh.answered - fresh.unsure - fresh.conflicts;
  const content = [tallyList([[fresh.answered, "answered"], [unanswered, "unanswered"], [fresh.unsure, "unsure"], [fresh.conflicts, "in conflict"]])];
  content.push(element("p", unanswered || fresh.unsure || fresh.conflicts
    ? "Questions that are unanswered, unsure or in conflict stay unlabelled and are not asked again."
    : "Every question has an answer."));
  if (!isSaved) content.push(element("p", `${plural(outbox.count, "answer")} of yours could not be saved yet and would come too late.`));
  $("close-text").replaceChildren(...content);
  $("close-yes").disabled = false;
}

$("close").addEventListener("click", askClose);
$("close-no").addEventListener("click", () => $("close-dialog").close());
$("close-yes").addEventListener("click", async () => {
  $("close-yes").disabled = true;
  try {
    await api.post("/api/close", { by: me });
    $("close-dialog").close();
  } catch (failure) {
    if (failure.status !== 423) return $("close-text").replaceChildren(element("p", sentence(failure.message)));
    $("close-dialog").close();
  }
  loadRun();
});
$("who").addEventListener("click", askName);
$("queue").addEventListener("click", () => startLine(queue === "round" ? "conflicts" : "round"));

function showAside() {
  const list = element("ul");
  for (const { qid, reason, answer: given } of outbox.aside) {
    list.append(element("li", `question ${qid}, ${given.labels ? palette.describe(given.labels) : "unsure"}: ${reason}`));
  }
  $("aside-list").replaceChildren(list);
  $("aside-dialog").showModal();
}

$("aside-done").addEventListener("click", () => $("aside-dialog").close());
$("aside-file").addEventListener("click", () => download(run.run, outbox.aside));
$("aside-discard").addEventListener("click", () => {
  outbox.discardAside();
  $("aside-dialog").close();
});

// ---- what the outbox reports

function makeOutbox() {
  const made = new Outbox(api, run.id);
  made.addEventListener("change", showSaved);
  made.addEventListener("moved", loadRun);
  made.addEventListener("locked", ({ detail }) => showLocked(detail.message));
  made.addEventListener("refused", ({ detail }) => {
    const item = line.find(detail.qid);
    if (item?.answer?.client_id === detail.answer.client_id) item.answer = null;
    past?.drop(detail.answer.client_id);
    isExhausted = false;
  });
  made.addEventListener("answered", ({ detail }) => {  // in another tab
    const item = line.find(detail.qid);
    if (!item || item.answer) return;
    item.answer = { client_id: detail.client_id, labels: null, isElsewhere: true };
    if (item === line.current && !draft) go();
  });
  made.addEventListener("undone", ({ detail }) => {
    const item = line.find(detail.qid);
    if (item?.answer?.client_id === detail.client_id) item.answer = null;
    past?.drop(detail.client_id);
  });
  made.addEventListener("tab", () => note("tab", "This page is open in another tab, too. Both work.", "Fine", () => note("tab", "")));
  queueMicrotask(showSaved);
  return made;
}

function sortOutbox() {
  const moved = outbox.sort(run.round, run.classes_digest, (item) => item.round !== run.round
    ? `it answers round ${item.round + 1}, but round ${run.round + 1} is open now`
    : "the classes have changed since");
  if (moved) say(`${plural(moved, "answer")} put aside.`);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenSince = performance.now();
  else {
    shownAt += performance.now() - hiddenSince;
    loadStats();
    if (!line.current) refill();
  }
});
addEventListener("online", () => (run ? refill() : loadRun()));
setInterval(async () => {
  await loadStats();
  if (!isExhausted || queue !== "round" || line.open.length || !stats?.left) return;
  isExhausted = false;  // perhaps somebody has taken an answer back
  refill();
}, STATS_MS);
loadRun();
