"""Contents of the report page: a mapping of plain values for each of ``templates/sections/``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.inference import palette
from ripu.labelstore import LabelStoreError, all_planned_picks
from ripu.report.charts import line_chart, reliability
from ripu.report.collect import SETTINGS_WITHOUT_ROUNDS, score_words
from ripu.report.gallery import old_pictures, painted_url, picture_url
from ripu.report.rundata import RunData
from ripu.report.storage import MOST_WIDTH
from ripu.report.verdict import judge

STARVING = 0.5  # a class starves if its IoU is below this fraction of the mean

Content = dict[str, Any]


def points(value: float | None, digits: int = 2) -> str:
    """Format a number, or a dash for none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """Format a difference, or a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def share(fraction: float | None) -> str:
    """Format a fraction in percent, with more digits if it is small."""
    if fraction is None:
        return "–"
    percent = 100 * fraction
    digits = 0 if percent >= 10 else 2 if percent >= 0.1 or not percent else 3
    return f"{percent:.{digits}f} %"


def css(color: Sequence[int]) -> str:
    """Format an RGB triple for CSS."""
    return f"rgb({color[0]},{color[1]},{color[2]})"


def head(data: RunData) -> Content:
    """Return name, state, the most important figures, and whether another round is likely to pay."""
    results, curve, rounds = data.results, data.curve, data.rounds
    has_rounds = results.get("setting") not in SETTINGS_WITHOUT_ROUNDS
    others = ("method",) if results.get("method", "ripu") != "ripu" else ()
    words = ("dataset", *(("mode", "setting", "acquisition") if has_rounds else ("setting",)), *others)
    named = {**results, "acquisition": score_words(results)} if results.get("acquisition") else results
    last, first = (curve[-1], curve[0]) if curve else ({}, {})
    before = next((one for one in curve if rounds and one["step"] == rounds[0]["step"]), first)
    miou, labelled = last.get("mIoU"), last.get("labelled_fraction")
    if rounds:  # a round may have followed the last evaluation
        labelled = max(labelled or 0.0, rounds[-1]["labelled_fraction"])
    scores = results if data.is_finished else last
    known = [(int(one["step"]), float(one["mIoU"])) for one in curve if one.get("mIoU") is not None]
    return {
        "title": " · ".join(str(named[key]) for key in words if named.get(key) is not None) or data.run.name,
        "miou": miou,
        "gain": miou - before["mIoU"] if miou is not None and before is not last else None,
        "labelled": labelled,
        "num_picks": sum(one.get("picks") or 0 for one in rounds),
        "subsets": {name: float(scores[name]) for name in scores if name.startswith("mIoU") and name != "mIoU"},
        "seconds": sum((results.get("seconds") or {}).values()),
        "verdict": judge(known, [int(one["step"]) for one in rounds]),
    }


def sections(data: RunData) -> dict[str, Content]:
    """Return the sections that a run has something to show in, by the name of their template."""
    parts = (curve, people, budget, shares, classes, gallery, confusion, calibration, hardest, reproduce)
    return {part.__name__: content for part in parts if (content := part(data)) is not None}


def curve(data: RunData) -> Content:
    """Return mIoU against steps and against the labelled share, and a row for each round."""
    known = [one for one in data.curve if one.get("mIoU") is not None]
    charts = []
    if len(known) > 1:
        marks = [
            (float(one["step"]), f"round {number + 1}", palette.hex_color(palette.round_color(number)))
            for number, one in enumerate(data.rounds)
        ]
        by_step, by_share = [], []
        for one in known:
            text = f"step {one['step']}: mIoU {one['mIoU']:.2f}, {share(one['labelled_fraction'])} labelled"
            by_step.append((float(one["step"]), float(one["mIoU"]), text))
            by_share.append((100 * float(one["labelled_fraction"]), float(one["mIoU"]), text))
        charts = [
            line_chart(by_step, "step (dotted: rounds)", "mIoU (%)", "mIoU over training steps", marks),
            line_chart(by_share, "target pixels queried (%)", "mIoU (%)", "mIoU over the labelled share"),
        ]
        hours = human_hours(data.rounds)
        if hours:
            spent = [sum(share for step, share in hours if step < one["step"]) for one in known]
            by_hours = [
                (worked, miou, f"{text}, {worked:.2f} hours of answering")
                for worked, (_, miou, text) in zip(spent, by_step, strict=True)
            ]
            charts.append(line_chart(by_hours, "hours of answering", "mIoU (%)", "mIoU over hours of answering"))
    mious = {one["step"]: one["mIoU"] for one in data.curve}
    rounds = []
    for number, one in enumerate(data.rounds):
        later = next((entry["mIoU"] for entry in data.curve if entry["step"] > one["step"]), None)
        before, after = one.get("mIoU_before", mious.get(one["step"])), one.get("mIoU", later)
        gain = after - before if None not in (before, after) else None
        needed = {name: one[name] for name in ("step", "picks", "labelled_fraction")}
        more = {"color": palette.round_color(number), "before": before, "after": after, "gain": gain}
        rounds.append({**one, **needed, **more})
    return {"charts": charts, "known": known, "rounds": rounds}


def human_hours(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return (step, hours of answering) of the rounds that people have answered."""
    return [(int(one["step"]), float(one["human_hours"])) for one in rounds if one.get("human_hours")]


def people(data: RunData) -> Content | None:
    """Return the work of people: hours, unsure answers, agreement, with and without suggestions."""
    rounds = [{**one["people"], "number": one["index"] + 1} for one in data.rounds if one.get("people")]
    return {"rounds": rounds} if rounds else None


def budget(data: RunData) -> Content | None:
    """Return the picks spent in each round and those that are left."""
    store = data.store
    if store is None:
        return None
    try:
        planned = all_planned_picks(store) or 0
        spent = [sum(len(store.asked(image.image_id, spec.index)) for image in store.images) for spec in store.rounds]
    except LabelStoreError as error:
        return {"error": str(error)}
    return {
        "rounds": [(palette.round_color(number), picks) for number, picks in enumerate(spent)],
        "spent": sum(spent),
        "planned": planned,
        "num_images": len(store.images),
        "labelled": data.rounds[-1]["labelled_fraction"] if data.rounds else 0.0,
    }


def shares(data: RunData) -> Content | None:
    """Return the share of each class in what was revealed and in the truth, and its pixels by round."""
    if not data.rounds:
        return None
    truth: Mapping[str, int] = data.results.get("true_class_pixels") or {}
    revealed: Mapping[str, int] = data.rounds[-1]["class_pixels"]
    total, total_true = max(sum(revealed.values()), 1), max(sum(truth.values()), 1)
    rows = []
    for name, color in zip(data.class_names, data.class_colors, strict=True):
        if name not in revealed:
            continue
        new = [_new_pixels(one, earlier, name) for one, earlier in zip(data.rounds, [None, *data.rounds], strict=False)]
        rows.append(
            {
                "name": name,
                "color": color,
                "true": truth[name] / total_true if name in truth else None,
                "revealed": revealed[name] / total,
                "pixels": revealed[name],
                "new": [(palette.round_color(number), pixels) for number, pixels in enumerate(new)],
                "most_new": max([*new, 1]),
            }
        )
    top = max([*(one / total for one in revealed.values()), *(one / total_true for one in truth.values())], default=0.0)
    return {"rows": rows, "top": top or 1.0, "has_truth": bool(truth)}


def _new_pixels(one: Mapping[str, Any], earlier: Mapping[str, Any] | None, name: str) -> int:
    """Return the pixels of a class that a round revealed, even if only the sums were recorded."""
    if "new_class_pixels" in one:
        return int(one["new_class_pixels"][name])
    return int(one["class_pixels"][name]) - (int(earlier["class_pixels"][name]) if earlier else 0)


def classes(data: RunData) -> Content:
    """Return the IoU of each class before the first round and at the end, and the classes that still starve."""
    known = [one for one in data.curve if one.get("per_class_iou")]
    if not known:
        return {"rows": []}
    after = known[-1]
    step = data.rounds[0]["step"] if data.rounds else None
    before = next((one for one in known if one["step"] == step), known[0])
    has_before = before is not after
    revealed = data.rounds[-1]["class_pixels"] if data.rounds else {}
    usual = float(np.median(list(revealed.values()))) if revealed else 0.0
    rows = []
    for name, color in zip(data.class_names, data.class_colors, strict=True):
        late, early = after["per_class_iou"].get(name), before["per_class_iou"].get(name)
        cause = ""
        if late is not None and late < STARVING * after["mIoU"]:
            cause = "few labels" if revealed.get(name, 0) < 0.25 * usual else "labelled, not learnt"
            cause = cause if revealed else "low"
        gain = late - early if has_before and None not in (late, early) else None
        rows.append({"name": name, "color": color, "before": early, "after": late, "gain": gain, "cause": cause})
    return {"rows": rows, "has_before": has_before, "mean": after["mIoU"]}


def gallery(data: RunData) -> Content | None:
    """Return the size of the gallery, which the script fills; the sheets of an older run if nothing was recorded."""
    sheets = [] if data.gallery else old_pictures(data)
    return {"num_images": len(data.gallery), "sheets": sheets} if data.gallery or sheets else None


def confusion(data: RunData) -> Content | None:
    """Return the confusion matrix of the last evaluation and its largest mistakes."""
    if not data.evaluations or data.evaluations[-1].confusion.shape[0] != len(data.class_names):
        return None
    counts, names = data.evaluations[-1].confusion, data.class_names
    wrong: NDArray[np.int64] = counts.copy()
    np.fill_diagonal(wrong, 0)
    worst = [divmod(int(place), len(names)) for place in np.argsort(wrong, axis=None)[::-1][:5]]
    part = 1 / max(int(counts.sum()), 1)
    return {
        "mistakes": [
            (names[row], names[column], part * wrong[row, column]) for row, column in worst if wrong[row, column]
        ],
        "names": names,
        "counts": counts.tolist(),
        "shares": (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).tolist(),
        "color": palette.BLUE,
    }


def calibration(data: RunData) -> Content | None:
    """Return accuracy by confidence, before the first round and at the end."""
    if not data.evaluations:
        return None
    step = data.rounds[0]["step"] if data.rounds else data.evaluations[0].step
    first = next((one for one in data.evaluations if one.step >= step), data.evaluations[0])
    last = data.evaluations[-1]
    first_color, last_color = palette.hex_color(palette.ORANGE), palette.hex_color(palette.BLUE)
    shown = [(f"before the first round (step {first.step})", first_color, first)] if first is not last else []
    shown.append((f"{'final' if last.is_final else 'last'} (step {last.step})", last_color, last))
    return {
        "errors": [(name, color, one.calibration_error) for name, color, one in shown],
        "chart": reliability([(name, color, one.bins) for name, color, one in shown]),
    }


def hardest(data: RunData) -> Content | None:
    """Return the validation images with the lowest mIoU of their own."""
    if not data.evaluations:
        return None
    last = data.evaluations[-1]
    known = last.images[np.isfinite(last.images[:, 1])]
    cards = []
    for index, miou, accuracy in known[np.argsort(known[:, 1], kind="stable")][:6].tolist():
        stem = f"val-{int(index):05d}"
        urls = {
            "image": picture_url(data, f"{stem}-image.jpg", MOST_WIDTH // 2),
            "truth": painted_url(data, f"{stem}-truth.png", MOST_WIDTH // 2),
            "prediction": painted_url(data, f"{stem}-after.png", MOST_WIDTH // 2),
        }
        name = data.val_ids[int(index)] if index < len(data.val_ids) else str(int(index))
        pictures = urls if last.is_final else {}
        cards.append({"name": name, "miou": miou, "accuracy": accuracy, "pictures": pictures})
    return {
        "mious": sorted(known[:, 1].tolist()),
        "median": float(np.median(known[:, 1])) if len(known) else None,
        "cards": cards,
    }


def reproduce(data: RunData) -> Content:
    """Return command, provenance and the exact configuration."""
    provenance = dict(data.results.get("provenance") or {})
    return {
        "command": provenance.pop("command", None),
        "provenance": provenance,
        "seconds": dict(data.results.get("seconds") or {}),
        "config": data.config_text,
    }
