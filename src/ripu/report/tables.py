"""Tables over runs as Markdown and CSV, alone or beside the figures of the paper."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from ripu.report.collect import SETTINGS_WITHOUT_ROUNDS, STARTS
from ripu.report.rows import TITLE, Row, differences, mean_std, row_name

PAPER_TITLES = {
    1: "Table 1: GTAV to Cityscapes",
    2: "Table 2: SYNTHIA to Cityscapes",
    3: "Table 3: ablation",
    4: "Table 4: selection methods, without the further losses",
    5: "Table 5: source free",
    6: "Table 6: shape of regions",
    7: "Table 7: negative threshold tau",
    8: "Table 8: weight alpha1 of the consistency term",
    9: "Table 9: weight alpha2 of negative learning",
    10: "Table 10: against an edge detector",
    11: "Table 11: selection methods by class, without the further losses",
    12: "Table 12: source free by class, GTAV to Cityscapes",
    13: "Table 13: source free by class, SYNTHIA to Cityscapes",
}

DEFAULTS = {
    "setting.name": "active",
    "mode.name": "ra",
    "acquisition": "RipuScore",
    "budget": 0.022,
    "region": "Square",
    "mode.budget_per": "image",
    "objective.consistency_weight": 0.1,
    "objective.negative_weight": 1.0,
    "objective.negative_threshold": 0.05,
}
"""Values of a row that its ``match`` leaves out; a setting without rounds is identified by its name alone."""

_PUBLISHED_TRAINING = {
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.head_lr_factor": 10.0,
    "optimizer.layer_decay": 1.0,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "optimizer.norm_decay": True,
    "optimizer.clip_norm": None,
    "optimizer.schedule": "poly",
    "optimizer.warmup_fraction": 0.0,
    "ema.decay": None,
}
"""The optimisation of every published row."""

NUM_ROUNDS = 5  # rounds of every row of the paper that has rounds

_TASK = {"gtav": "GTAV", "streets": "GTAV", "camvid": "GTAV", "synthia": "SYNTHIA", "streets_synthia": "SYNTHIA"}
_SHORT = {"traffic light": "light", "traffic sign": "sign"}
_SHORT |= {"vegetation": "veg.", "sidewalk": "side.", "building": "buil."}


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (head, *body)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def means_table(rows: Sequence[Row]) -> str:
    """Format a line per row: mIoU as mean and sample standard deviation over seeds, and further means."""
    subsets = _subsets(rows)
    has_also = any(row.also for row in rows)
    head = [*TITLE, *(["differs in"] if has_also else []), "n", "seeds", "mIoU", *subsets, "labelled %"]
    body = []
    for row in rows:
        also = [", ".join(differences(row))] if has_also else []
        labelled = [100 * value for value in row.values("labelled_fraction")]
        figures = [mean_std(row.values(name), 2) for name in ("mIoU", *subsets)]
        figures.append(f"{statistics.fmean(labelled):.3g}" if labelled else "–")
        body.append([*row.title.values(), *also, str(len(row.runs)), " ".join(map(str, row.seeds)), *figures])
    return markdown(head, body)


def _subsets(rows: Sequence[Row]) -> list[str]:
    """Return the names of further means, e.g. ``mIoU13``."""
    names = {name for row in rows for run in row.runs for name in run.results}
    return sorted(name for name in names if name.startswith("mIoU") and name != "mIoU")


def classes_table(rows: Sequence[Row]) -> str:
    """Format the IoU of each class, one table per set of classes; a class that never occurs has a dash."""
    parts = []
    for names in dict.fromkeys(tuple(row.class_names) for row in rows):
        body = []
        for row in (one for one in rows if tuple(one.class_names) == names):
            values = [_class_cell(row, name) for name in names]
            body.append([row_name(row), *values, mean_std(row.values("mIoU"))])
        parts.append(markdown(["row", *(_SHORT.get(name, name) for name in names), "mIoU"], body))
    return "\n".join(parts)


def _class_cell(row: Row, name: str) -> str:
    """Format the IoU of a class over the seeds that have one, with their number if not all have."""
    values = row.values("per_class_iou", name)
    return mean_std(values) + (f" (n={len(values)})" if 0 < len(values) < len(row.runs) else "")


def to_csv(rows: Sequence[Row]) -> str:
    """Format every run with all its figures as CSV, one line per run."""
    classes = list(dict.fromkeys(name for row in rows for name in row.class_names))
    also = list(dict.fromkeys(key for row in rows for key in row.also))
    subsets = _subsets(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*TITLE, *also, "seed", "mIoU", *subsets, "labelled_fraction", *classes, "run"])
    for row in rows:
        for run in row.runs:
            iou = run.results.get("per_class_iou") or {}
            title = ["" if value == "–" else value for value in row.title.values()]
            values = [run.results.get(name) for name in ("mIoU", *subsets, "labelled_fraction")]
            further = [row.also.get(key, "") for key in also]
            writer.writerow([*title, *further, run.seed, *values, *(iou.get(name) for name in classes), run.run])
    return buffer.getvalue()


def paper_rows() -> list[dict[str, str]]:
    """Return the rows of the paper's Tables 1 to 13 in its order, as stored in ``paper_tables.csv``."""
    with (resources.files("ripu.report") / "paper_tables.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(io.StringIO(file.read())))


def _learns_as_published(dataset: str, config: Mapping[str, Any]) -> bool:
    """Return whether a run minimises Eq. 12 and optimises as published; on other data sets, as their recipe does."""
    if not str(config.get("objective._target_")).endswith(".RipuObjective"):
        return False
    is_published = dataset in ("gtav", "synthia")
    weights = [0.0] if is_published else [0.0, config.get("dataset.recipe.class_balance")]
    if not any(_same(config.get("objective.class_balance"), weight) for weight in weights):
        return False
    if not is_published:
        return True
    return all(_same(config.get(key), value) for key, value in _PUBLISHED_TRAINING.items())


def matches(paper: Mapping[str, str], row: Row) -> bool:
    """Return True if a row of runs is the experiment of a row of the paper, up to data, network and length of training.

    Rows on DeepLab-v3+ with ResNet-101 are matched only by runs of that network, all others only by runs of other
    networks. The number of rounds must agree, the number of steps need not. These match nothing: runs of several
    processes, whose steps have more images; runs that start from another run or from masks, except source-free ones
    with ``model.checkpoint``; runs with another objective, and on the published data sets with another optimiser or
    with averaged weights; runs without a readable ``config.yaml``. With SGD, Source Only matches only at the learning
    rate of the recipe: the source networks of Table 5 use another one and have no published figure.
    """
    config = row.runs[0].config
    if row.runs[0].results.get("processes", 1) != 1 or not config or not paper["match"]:
        return False
    if _TASK.get(row.title["dataset"]) != paper["task"]:
        return False
    wanted = dict(pair.split("=", 1) for pair in paper["match"].split() if "=" in pair)
    setting = wanted.get("setting.name", "active")
    if any(config.get(key) for key in STARTS if setting != "source_free" or key != "model.checkpoint"):
        return False
    if not _learns_as_published(row.title["dataset"], config):
        return False
    network = str(config.get("model._target_", ""))
    is_v3 = network.endswith("DeepLabV3Plus") and network.startswith("ripu.")
    if ("model._target_" in wanted) != is_v3:
        return False
    wanted.pop("model._target_", None)
    rates = config.get("optimizer.learning_rate"), config.get("dataset.recipe.learning_rate")
    is_sgd = config.get("optimizer._target_") == "torch.optim.SGD"  # others have a rate of their own
    if setting == "source_only" and is_sgd and not _same(*rates):
        return False
    if setting in SETTINGS_WITHOUT_ROUNDS:
        return row.title["setting"] == setting
    steps = config.get("selection_steps")
    planned = config.get("setting.selection_fractions") if steps is None else steps
    if not isinstance(planned, list) or len(planned) != NUM_ROUNDS:
        return False
    expected = {**DEFAULTS, **wanted}
    radii: tuple[Any, ...] = (1,)
    if setting == "source_free":
        expected = {key: value for key, value in expected.items() if not key.startswith("objective.")}
        radii = (1, 9)  # Appendix E, and as released
    if expected["mode.name"] == "pa":
        expected.pop("region")  # single pixels have no shape
        radii = (config.get("dataset.recipe.pixel_radius"),)
    if not any(_same(config.get("mode.radius"), radius) for radius in radii):
        return False  # other radii belong to Fig. 6
    found = {
        **{key: config.get(key) for key in expected},
        "setting.name": row.title["setting"],
        "mode.name": row.title["mode"],
        "acquisition": row.title["acquisition"],
        "budget": row.title["budget"],
        "region": str(config.get("region._target_")).rpartition(".")[2],
    }
    return all(_same(found[key], value) for key, value in expected.items())


def _same(found: Any, expected: Any) -> bool:
    try:
        return abs(float(found) - float(expected)) < 1e-9
    except (TypeError, ValueError):
        return str(found) == str(expected)


def paper_tables(rows: Sequence[Row]) -> str:
    """Format the paper's tables in its order of rows and columns, with our rows of the same experiment beside them.

    Figures on other data than the paper's reproduce nothing: their column is named after the data set. Tables that no
    run belongs to are left out. If the paper has the classes, its line and ours follow.
    """
    every = paper_rows()
    parts = []
    for number, title in PAPER_TITLES.items():
        table = [one for one in every if one["table"] == str(number)]
        for task in dict.fromkeys(one["task"] for one in table):
            part = [one for one in table if one["task"] == task]
            found = {id(one): [row for row in rows if matches(one, row)] for one in part}
            datasets = list(dict.fromkeys(row.title["dataset"] for ours in found.values() for row in ours))
            if not datasets:
                continue
            suffix = "" if task in title else f" ({task} to Cityscapes)"
            parts.append(f"### {title}{suffix}\n\n{_beside(part, found, datasets)}")
            if part[0]["road"]:
                parts.append(_classes_beside(part, found))
    return "\n".join(parts) if parts else "No run belongs to a table of the paper.\n"


def _beside(part: Sequence[dict[str, str]], found: Mapping[int, Sequence[Row]], datasets: Sequence[str]) -> str:
    body, notes = [], []
    has_13 = any(one["mIoU13"] for one in part)
    for one in part:
        mark = ""
        if one["note"]:
            notes += [] if one["note"] in notes else [one["note"]]
            mark = f" [{notes.index(one['note']) + 1}]"
        cells = [f"{one['method']}{mark}", one["budget"] or "–", one["mIoU"]]
        cells += [one["mIoU13"] or "–"] if has_13 else []
        for dataset in datasets:
            ours = [row for row in found[id(one)] if row.title["dataset"] == dataset]
            texts = []
            for row in ours:
                of_13 = f", mIoU13 {mean_std(row.values('mIoU13'))}" if has_13 and row.values("mIoU13") else ""
                text = f"{mean_std(row.values('mIoU'))}{of_13} (n={len(row.runs)})"
                texts.append(f"{text} {', '.join(differences(row, ours))}".strip())
            cells.append("; ".join(texts) or "–")
        body.append(cells)
    head = ["method", "budget", "paper mIoU", *(["paper mIoU13"] if has_13 else [])]
    head += [f"ours, {name}" for name in datasets]
    foot = "".join(f"\n[{place}] {note}." for place, note in enumerate(notes, start=1))
    return markdown(head, body) + (foot + "\n" if foot else "")


def _classes_beside(part: Sequence[dict[str, str]], found: Mapping[int, Sequence[Row]]) -> str:
    classes = [name for name in list(part[0])[list(part[0]).index("mIoU13") + 1 :] if part[0][name]]
    body = []
    for one in part:
        own = [row for row in found[id(one)] if set(classes) <= set(row.class_names)]
        if not own:
            continue
        name = f"{one['method']} {one['budget']}".strip()
        body.append([f"paper: {name}", *(one[name] for name in classes), one["mIoU"]])
        for row in own:
            values = [_class_cell(row, name) for name in classes]
            named = row_name(row, [other for other in own if other.title == row.title])
            body.append([f"ours: {named} (n={len(row.runs)})", *values, mean_std(row.values("mIoU"))])
    return markdown(["row", *(_SHORT.get(name, name) for name in classes), "mIoU"], body) if body else ""
