"use strict";
(() => {
  const table = document.getElementById("rows");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const curves = [...document.querySelectorAll(".curve")];
  const keys = [...document.querySelectorAll(".keys [data-rows]")];
  const status = document.getElementById("status");
  const [text, dataset, kind, finished] = ["text", "dataset", "kind", "finished"].map((id) => document.getElementById(id));

  // ---- sorting: rows without a value come last in both directions, and equal ones keep their order
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (!("number" in heads[column].dataset)) return cell.textContent === "-" ? null : cell.textContent;
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  };
  const compared = (one, other) =>
    typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
  const sort = (column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const values = new Map(rows.map((row) => [row, valueOf(row, column)]));
    const known = rows.filter((row) => values.get(row) !== null);
    const unknown = rows.filter((row) => values.get(row) === null);
    known.sort((one, other) => sign * compared(values.get(one), values.get(other)));
    rows.splice(0, rows.length, ...known, ...unknown);
    body.append(...rows);
    heads.forEach((head, number) => {
      const now = number === column ? direction : "none";
      head.setAttribute("aria-sort", now);
      head.querySelector("span").textContent = { ascending: "▲", descending: "▼", none: "" }[now];
    });
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const first = "number" in head.dataset ? "descending" : "ascending"; // the largest number is asked for most often
    const opposite = { ascending: "descending", descending: "ascending" };
    sort(column, opposite[head.getAttribute("aria-sort")] || first);
  }));

  // ---- filters: of rows, curves and the legend
  const shown = () => new Set(rows.filter((row) => !row.hidden).map((row) => row.dataset.row));
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const content = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !(
        words.every((word) => content.includes(word)) &&
        (!dataset.value || row.dataset.dataset === dataset.value) &&
        (!kind.value || row.dataset.kind === kind.value) &&
        (!finished.checked || !row.classList.contains("open"))
      );
    }
    const left = shown();
    for (const curve of curves) curve.toggleAttribute("hidden", !left.has(curve.dataset.row));
    for (const key of keys) key.hidden = !key.dataset.rows.split(" ").some((row) => left.has(row));
    const drawn = curves.filter((curve) => left.has(curve.dataset.row)).length;
    status.textContent = `${left.size} of ${rows.length} rows, ${drawn} ${drawn === 1 ? "curve" : "curves"}`;
  };
  for (const control of [text, dataset, kind, finished]) control.addEventListener("input", filter);
  document.querySelector(".filters").addEventListener("reset", () => setTimeout(filter)); // after the controls are reset
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());

  // ---- a row under the pointer shows its curve, and a curve its row
  const light = (number) => {
    const has = number !== undefined && curves.some((curve) => curve.dataset.row === number);
    for (const curve of curves) {
      curve.classList.toggle("dim", has && curve.dataset.row !== number);
      curve.classList.toggle("lit", has && curve.dataset.row === number);
    }
    for (const row of rows) row.classList.toggle("lit", has && row.dataset.row === number);
  };
  for (const one of [...rows, ...curves]) {
    one.addEventListener("pointerenter", () => light(one.dataset.row));
    one.addEventListener("pointerleave", () => light());
  }
  filter();
})();
