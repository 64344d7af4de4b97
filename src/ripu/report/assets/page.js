"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const scripts = [...document.querySelectorAll("script.item")];
  const grid = document.getElementById("grid");
  if (!grid || !scripts.length) return;

  // ---- pictures: decoded when first shown, kept while they are wanted
  const items = scripts.map(() => null);
  const item = (k) => items[k] || (items[k] = JSON.parse(scripts[k].textContent));
  const cache = new Map();
  const MOST_KEPT = 240;
  const kept = (key, make) => {
    let value = cache.get(key);
    if (!value) {
      value = make();
      if (cache.size >= MOST_KEPT) cache.delete(cache.keys().next().value);
    } else cache.delete(key);
    cache.set(key, value);
    return value;
  };
  const sheet = (width, height) => Object.assign(document.createElement("canvas"), { width, height });
  const photo = (url) => new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => fail(new Error("a picture of the report is damaged"));
    image.src = url;
  });
  const pixels = async (url) => {
    const image = await photo(url);
    const canvas = sheet(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  };
  const painted = (data, color) => {
    const canvas = sheet(data.width, data.height);
    const context = canvas.getContext("2d");
    const out = context.createImageData(data.width, data.height);
    for (let place = 0; place < data.data.length; place += 4) {
      const [red, green, blue] = color(data.data[place]);
      out.data[place] = red; out.data[place + 1] = green; out.data[place + 2] = blue; out.data[place + 3] = 255;
    }
    context.putImageData(out, 0, 0);
    return canvas;
  };
  const classColor = (id) => (id < page.classes.length ? page.classes[id].color : [0, 0, 0]);
  const roundColor = (number) => page.roundColors[(number - 1) % page.roundColors.length];
  const ids = (k, key, url) => kept(`ids ${k} ${key}`, () => pixels(url));

  const labelUrl = (one, layer, round) =>
    layer === "truth" ? one.truth : layer === "after" ? one.after : ((one.rounds || [])[round - 1] || {}).prediction;
  const layerOf = (k, layer, round) => {
    const one = item(k);
    if (layer === "image") return kept(`image ${k}`, () => photo(one.image));
    if (layer === "truth" || layer === "after" || layer === "before") {
      const url = labelUrl(one, layer, round);
      if (!url) return null;
      return kept(`layer ${k} ${layer} ${round}`, async () => painted(await ids(k, `${layer} ${round}`, url), classColor));
    }
    const part = (one.rounds || [])[round - 1];
    const number = part && part.names ? part.names.indexOf(layer) : -1;
    if (number < 0) return null;
    return kept(`layer ${k} ${layer} ${round}`, async () => {
      const all = await ids(k, `maps ${round}`, part.maps);
      const height = Math.round(all.height / part.names.length);
      const slice = new ImageData(all.data.slice(4 * all.width * height * number, 4 * all.width * height * (number + 1)), all.width, height);
      return painted(slice, (value) => page.heat[value]);
    });
  };
  const askedOf = (k, mode, round) => {
    const one = item(k);
    if (mode === "off" || !one.asked) return null;
    return kept(`asked ${k} ${mode} ${round}`, async () => {
      const data = await ids(k, "asked", one.asked);
      const { width, height } = data;
      const canvas = sheet(width, height);
      const context = canvas.getContext("2d");
      const places = [];
      for (let place = 0; place < width * height; place++) {
        const number = data.data[4 * place];
        if (number && number <= round) places.push(place);
      }
      const reach = places.length < 0.004 * width * height ? Math.max(1, Math.round(width / 250)) : 0;
      if (mode === "class") { // classes may be as dark as what lies below
        context.fillStyle = "#dddddd";
        for (const place of places) context.fillRect((place % width) - reach - 1, Math.floor(place / width) - reach - 1, 2 * reach + 3, 2 * reach + 3);
      }
      for (const place of places) {
        const color = mode === "round" ? roundColor(data.data[4 * place]) : classColor(data.data[4 * place + 1]);
        context.fillStyle = `rgb(${color})`;
        context.fillRect((place % width) - reach, Math.floor(place / width) - reach, 2 * reach + 1, 2 * reach + 1);
      }
      return canvas;
    });
  };

  // ---- what is shown
  const rounds = page.rounds.length;
  const one = item(0);
  const maps = new Set((one.rounds || []).flatMap((part) => part.names || []));
  const layers = [["image", "image"]];
  if (one.truth) layers.push(["truth", "truth"]);
  if ((one.rounds || []).some((part) => part.prediction)) layers.push(["before", "prediction before the round"]);
  if (one.after) layers.push(["after", "prediction at the end"]);
  for (const name of ["score", "impurity", "uncertainty"]) if (maps.has(name)) layers.push([name, `${name} at the round`]);
  const state = { layer: "image", round: rounds, asked: one.asked ? "round" : "off", opacity: 0.85 };

  const draw = async (canvas, k) => {
    const { layer, round, asked, opacity } = state;
    const token = (canvas.token = {});
    const [base, over, marks] = await Promise.all([layerOf(k, "image", round), layer === "image" ? null : layerOf(k, layer, round), askedOf(k, asked, round)]);
    if (canvas.token !== token) return;
    canvas.width = base.naturalWidth; canvas.height = base.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(base, 0, 0);
    if (over) { context.globalAlpha = opacity; context.imageSmoothingEnabled = !["truth", "before", "after"].includes(layer); context.drawImage(over, 0, 0, canvas.width, canvas.height); }
    if (marks) {
      context.globalAlpha = layer === "image" ? 0.3 : 0; context.fillStyle = "#000"; context.fillRect(0, 0, canvas.width, canvas.height);
      context.globalAlpha = 1; context.imageSmoothingEnabled = false; context.drawImage(marks, 0, 0, canvas.width, canvas.height);
    }
    context.globalAlpha = 1;
    canvas.dataset.drawn = layer;
  };

  const option = (value, text) => `<option value="${value}">${text}</option>`;
  const controls = () => `
    <label>layer <select data-key="layer">${layers.map(([value, text]) => option(value, text)).join("")}</select></label>
    ${layers.length > 1 ? `<label>opacity <input data-key="opacity" type="range" min="0.1" max="1" step="0.05" aria-label="opacity of the layer"></label>` : ""}
    ${one.asked ? `<label>queried <select data-key="asked">${option("round", "by round")}${option("class", "by class")}${option("off", "hidden")}</select></label>` : ""}
    ${rounds ? `<label>up to round <input data-key="round" type="range" min="1" max="${rounds}" step="1" aria-label="round"><b data-round></b></label>` : ""}`;
  const legend = document.getElementById("legend");
  const swatch = (color, text) => `<span><i class="swatch" style="background:rgb(${color})"></i>${text}</span>`;
  const escaped = (text) => { const box = document.createElement("b"); box.textContent = text; return box.innerHTML; };
  const refreshLegend = () => {
    let text = "";
    if (state.asked === "round" && rounds) text += page.rounds.map((step, number) => swatch(roundColor(number + 1), `round ${number + 1}`)).join("");
    if (["truth", "before", "after"].includes(state.layer) || state.asked === "class") text += page.classes.map((entry) => swatch(entry.color, escaped(entry.name))).join("");
    if (maps.has(state.layer)) {
      const stops = [0, 64, 128, 192, 255].map((value) => `rgb(${page.heat[value]})`).join(",");
      text += `<span>0<i class="ramp" style="background:linear-gradient(90deg,${stops})"></i>the image's highest ${state.layer} at round ${state.round}${state.layer === "score" ? "" : " (nats)"}</span>`;
    }
    legend.innerHTML = text;
  };
  const bound = [];
  const bind = (box) => {
    box.innerHTML = controls() + box.innerHTML;
    for (const input of box.querySelectorAll("[data-key]")) {
      bound.push(input);
      input.addEventListener("input", () => { const key = input.dataset.key; state[key] = key === "round" || key === "opacity" ? Number(input.value) : input.value; refresh(); });
    }
  };
  let waiting = 0;
  const refresh = () => {
    for (const input of bound) input.value = state[input.dataset.key];
    for (const label of document.querySelectorAll("[data-round]")) label.textContent = state.round;
    refreshLegend();
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const card of cards) if (card.isNear) draw(card.canvas, card.k);
      if (viewer.open) draw(big, shown);
    });
  };

  // ---- the grid
  const cards = scripts.map((script, k) => {
    const figure = document.createElement("figure");
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    const name = script.dataset.name;
    caption.textContent = name;
    button.setAttribute("aria-label", `look closer at ${name}`);
    button.style.aspectRatio = script.dataset.ratio;
    button.append(canvas); figure.append(button, caption); grid.append(figure);
    button.addEventListener("click", () => look(k));
    return { figure, canvas, k, isNear: false };
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const card = cards[Number(entry.target.dataset.k)];
      card.isNear = entry.isIntersecting;
      if (card.isNear) draw(card.canvas, card.k);
      else { card.canvas.width = card.canvas.height = 1; items[card.k] = null; }
    }
  }, { rootMargin: "300px" });
  for (const card of cards) { card.figure.dataset.k = card.k; seen.observe(card.figure); }

  // ---- the viewer: wheel, pinch or buttons zoom, dragging pans
  const viewer = document.createElement("dialog");
  viewer.setAttribute("aria-label", "one image of the gallery");
  viewer.innerHTML = `<div class="stage"></div><div class="bar-of-viewer"><div class="row"><button data-close>close</button>
    <button data-go="-1" aria-label="previous image">‹</button><button data-go="1" aria-label="next image">›</button>
    <button data-zoom="1.5" aria-label="zoom in">+</button><button data-zoom="0.667" aria-label="zoom out">−</button>
    <button data-fit>fit</button><span class="row" data-controls></span></div><div id="readout"></div></div>`;
  document.body.append(viewer);
  const stage = viewer.querySelector(".stage"), readout = viewer.querySelector("#readout");
  const big = document.createElement("canvas");
  big.setAttribute("role", "img");
  stage.append(big);
  let shown = 0, view = { x: 0, y: 0, scale: 1 };
  const place = () => {
    big.style.transform = `translate(${view.x}px,${view.y}px) scale(${view.scale})`;
    big.style.imageRendering = view.scale > 2 ? "pixelated" : "auto";
  };
  const fit = () => {
    const scale = Math.min(stage.clientWidth / big.width, stage.clientHeight / big.height);
    view = { scale, x: (stage.clientWidth - big.width * scale) / 2, y: (stage.clientHeight - big.height * scale) / 2 };
    place();
  };
  const zoom = (factor, x, y) => {
    const scale = Math.min(40, Math.max(0.2, view.scale * factor)), real = scale / view.scale;
    view = { scale, x: x - (x - view.x) * real, y: y - (y - view.y) * real };
    place();
  };
  const look = async (k) => {
    shown = (k + scripts.length) % scripts.length;
    if (!viewer.open) viewer.showModal();
    readout.textContent = scripts[shown].dataset.name;
    big.setAttribute("aria-label", scripts[shown].dataset.name);
    await draw(big, shown);
    fit();
  };
  const fingers = new Map();
  stage.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * 0.0015), event.clientX, event.clientY); }, { passive: false });
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); fingers.set(event.pointerId, [event.clientX, event.clientY]); });
  for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (before) {
      const others = [...fingers].filter(([id]) => id !== event.pointerId);
      if (others.length) {
        const [, [ox, oy]] = others[0];
        const factor = Math.hypot(event.clientX - ox, event.clientY - oy) / Math.max(1, Math.hypot(before[0] - ox, before[1] - oy));
        zoom(factor, (event.clientX + ox) / 2, (event.clientY + oy) / 2);
      } else { view.x += event.clientX - before[0]; view.y += event.clientY - before[1]; place(); }
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
    }
    tell((event.clientX - view.x) / view.scale / big.width, (event.clientY - view.y) / view.scale / big.height);
  });
  const tell = async (u, v) => {
    const now = item(shown), k = shown;
    if (u < 0 || v < 0 || u >= 1 || v >= 1) return;
    const at = (data, channel = 0) => data.data[4 * (Math.floor(v * data.height) * data.width + Math.floor(u * data.width)) + channel];
    const named = (id) => (page.classes[id] || { name: "void" }).name;
    const text = [`row ${Math.floor(v * now.height)}, column ${Math.floor(u * now.width)}`];
    for (const [layer, word] of [["truth", "truth"], ["before", "before"], ["after", "after"]]) {
      const url = labelUrl(now, layer, state.round);
      if (url) text.push(`${word} ${named(at(await ids(k, `${layer} ${state.round}`, url)))}`);
    }
    const part = (now.rounds || [])[state.round - 1];
    if (part && part.names) {
      const all = await ids(k, `maps ${state.round}`, part.maps);
      const height = all.height / part.names.length;
      part.names.forEach((name, number) => {
        const row = Math.floor(height * number + v * height), column = Math.floor(u * all.width);
        text.push(`${name} ${((all.data[4 * (row * all.width + column)] / 255) * part.largest[number]).toFixed(2)}`);
      });
    }
    if (now.asked) { const number = at(await ids(k, "asked", now.asked)); if (number) text.push(`queried in round ${number}`); }
    if (k === shown) readout.textContent = `${scripts[k].dataset.name}: ${text.join(" · ")}`;
  };
  viewer.addEventListener("click", (event) => {
    const data = event.target.dataset || {};
    if (data.go) look(shown + Number(data.go));
    if (data.zoom) zoom(Number(data.zoom), stage.clientWidth / 2, stage.clientHeight / 2);
    if ("fit" in data) fit();
    if ("close" in data) viewer.close();
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select")) return;
    if (event.key === "ArrowRight") look(shown + 1);
    if (event.key === "ArrowLeft") look(shown - 1);
  });
  addEventListener("resize", () => viewer.open && fit());
  bind(document.getElementById("controls"));
  bind(viewer.querySelector("[data-controls]"));
  refresh();
})();
