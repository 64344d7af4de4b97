"""The sections of the report page, each from a run's data to HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.inference import palette
from ripu.labelstore import LabelStoreError, all_planned_picks
from ripu.report.charts import Line, confusion_matrix, line_chart, reliability
from ripu.report.collect import SETTINGS_WITHOUT_ROUNDS
from ripu.report.gallery import old_pictures, painted_url, picture_url
from ripu.report.rundata import Evaluation, RunData
from ripu.report.storage import MOST_WIDTH
from ripu.report.verdict import Verdict, judge

STARVING = 0.5
"""A class starves if its IoU is below this part of the mean."""

FIRST, LAST = palette.hex_color(palette.ORANGE), palette.hex_color(palette.BLUE)


def points(value: float | None, digits: int = 2) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference for people."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def share(fraction: float | None) -> str:
    """A share in percent, with the digits that a small one needs."""
    if fraction is None:
        return "–"
    percent = 100 * fraction
    return (
        f"{percent:.0f} %"
        if percent >= 10
        else (f"{percent:.2f} %" if percent >= 0.1 or not percent else f"{percent:.3f} %")
    )


def css(color: Sequence[int]) -> str:
    """An RGB triple as CSS takes it."""
    return f"rgb({color[0]},{color[1]},{color[2]})"


def swatch(color: Sequence[int]) -> str:
    """A small square in a colour."""
    return f'<i class="swatch" style="background:{css(color)}"></i>'


def section(name: str, title: str, body: str, lead: str = "") -> str:
    """A section of the page."""
    text = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{text}{body}</section>'


def verdict_of(data: RunData) -> Verdict:
    """Whether another round is likely to pay."""
    curve = [(int(one["step"]), float(one["mIoU"])) for one in data.curve if one.get("mIoU") is not None]
    return judge(curve, [int(one["step"]) for one in data.rounds])


def is_without_rounds(data: RunData) -> bool:
    """Whether a run asks for nothing, so that its mode and score say nothing about it."""
    return data.results.get("setting") in SETTINGS_WITHOUT_ROUNDS


def head(data: RunData) -> str:
    """Name, state and the figures that matter most."""
    results = data.results
    keys = ("dataset", "setting") if is_without_rounds(data) else ("dataset", "mode", "setting", "acquisition")
    words = [str(results[key]) for key in keys if results.get(key) is not None]
    curve = data.curve
    last, first = (curve[-1], curve[0]) if curve else ({}, {})
    before = next((one for one in curve if data.rounds and one["step"] == data.rounds[0]["step"]), first)
    state = (
        "finished"
        if data.is_finished
        else f"unfinished, at step {results.get('step', '?')} of {results.get('max_steps', '?')}"
    )
    miou = last.get("mIoU")
    gain = miou - before["mIoU"] if miou is not None and before is not last else None
    seconds = sum((results.get("seconds") or {}).values())
    labelled = last.get("labelled_fraction")
    if data.rounds:  # a round may have come after the last evaluation
        labelled = max(labelled or 0.0, data.rounds[-1]["labelled_fraction"])
    scores = results if data.is_finished else last
    tiles = [
        ("mIoU", f"{points(miou)}", "of the last iterate" if data.is_finished else "so far"),
        ("gain", signed(gain), "since before the first round" if data.rounds else "since the first evaluation"),
        ("labelled", share(labelled), "of the target's pixels"),
        ("rounds", str(len(data.rounds)), f"{sum(one.get('picks') or 0 for one in data.rounds):,} picks"),
    ]
    tiles += [
        (name, points(float(scores[name])), "mean over a subset")
        for name in scores
        if name.startswith("mIoU") and name != "mIoU"
    ]
    if seconds:
        tiles.append(("time", f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h", "all phases"))
    boxes = "".join(
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'
        for name, value, note in tiles
    )
    verdict = verdict_of(data)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in data.notes)
    return (
        f'<header><p class="over">round report · {escape(state)}</p><h1>{escape(" · ".join(words) or data.run.name)}'
        f'<small> seed {escape(str(results.get("seed", "?")))}</small></h1><div class="tiles">{boxes}</div>'
        f'<p class="verdict {verdict.answer}" id="verdict">{escape(verdict.sentence)}</p>{notes}</header>'
    )


def learning_curve(data: RunData) -> str:
    """mIoU against steps and against the labelled share."""
    color = "var(--accent)"
    marks = [
        (float(one["step"]), f"round {number + 1}", palette.hex_color(palette.round_color(number)))
        for number, one in enumerate(data.rounds)
    ]
    known = [one for one in data.curve if one.get("mIoU") is not None]
    if len(known) == 1:
        text = f"One evaluation, at step {known[0]['step']:,}: mIoU {known[0]['mIoU']:.2f}."
        return section("curve", "Learning curve", f"<p>{text}</p>" + round_table(data))
    tips = [f"step {one['step']}: mIoU {one['mIoU']:.2f}, {share(one['labelled_fraction'])} labelled" for one in known]
    by_step = line_chart(
        [Line([(float(one["step"]), float(one["mIoU"])) for one in known], color, "mIoU", tips)],
        "step (dotted: rounds)",
        "mIoU (%)",
        marks,
        "mIoU over training steps",
    )
    by_share = line_chart(
        [Line([(100 * float(one["labelled_fraction"]), float(one["mIoU"])) for one in known], color, "mIoU", tips)],
        "target pixels asked about (%)",
        "mIoU (%)",
        label="mIoU over the labelled share",
    )
    return section("curve", "Learning curve", f'<div class="pair">{by_step}{by_share}</div>' + round_table(data))


def round_table(data: RunData) -> str:
    """A line for every round."""
    if not data.rounds:
        return '<p class="missing">No round: this setting asks for nothing, or the run has not come to its first.</p>'
    names = (
        "round",
        "step",
        "picks",
        "labelled",
        "mIoU before",
        "after",
        "gain",
        "impurity",
        "uncertainty",
        "neighbours",
        "void",
        "seconds",
        "images/s",
    )
    rows = []
    mious = {one["step"]: one["mIoU"] for one in data.curve}
    for number, one in enumerate(data.rounds):
        later = [entry["mIoU"] for entry in data.curve if entry["step"] > one["step"]]
        before, after = one.get("mIoU_before", mious.get(one["step"])), one.get("mIoU", later[0] if later else None)
        near, chance = one.get("overlap"), one.get("overlap_by_chance")
        neighbours = (
            "–" if near is None else f"{100 * near:.0f} %" + (f" ({100 * chance:.0f} %)" if chance is not None else "")
        )
        cells = [
            swatch(palette.round_color(number)) + str(number + 1),
            f"{one['step']:,}",
            f"{one['picks']:,}",
            share(one["labelled_fraction"]),
            points(before),
            points(after),
            signed(after - before if None not in (before, after) else None, 2),
            points(one.get("mean_impurity"), 3),
            points(one.get("mean_uncertainty"), 3),
            neighbours,
            share(one.get("void_fraction")),
            points(one.get("seconds"), 1),
            points(one.get("images_per_second"), 1),
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{name}</th>" for name in names)
    return (
        f'<div class="scroll"><table id="rounds"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        '<p class="fine">Impurity and uncertainty: means over the picks, in nats. Neighbours: picks next to what the round '
        "before asked for (in brackets: of picks at random). Void: share of all answers so far without a class. A gain holds "
        "the training between two evaluations, too.</p>"
    )


def budget(data: RunData) -> str:
    """What is spent, round by round, and what is left."""
    store = data.store
    if store is None:
        return ""
    try:
        planned = all_planned_picks(store) or 0
        spent = [sum(len(store.asked(image.image_id, spec.index)) for image in store.images) for spec in store.rounds]
    except LabelStoreError as error:
        return section("budget", "Budget", f'<p class="missing">{escape(str(error))}</p>')
    whole = max(planned, sum(spent), 1)
    bars = "".join(
        f'<i style="width:{100 * picks / whole:.3f}%;background:{css(palette.round_color(number))}" '
        f'title="round {number + 1}: {picks:,} picks"></i>'
        for number, picks in enumerate(spent)
    )
    pixels = data.rounds[-1]["labelled_fraction"] if data.rounds else 0.0
    keys = "".join(
        f"<span>{swatch(palette.round_color(number))}round {number + 1}: {picks:,} picks</span>"
        for number, picks in enumerate(spent)
    )
    text = (
        f"<b>{sum(spent):,}</b>{f' of {planned:,} planned' if planned else ''} picks on {len(store.images):,} images; "
        f"{share(pixels)} of all pixels asked about"
        + (f"; {planned - sum(spent):,} picks left." if planned > sum(spent) else ".")
    )
    meter = f'<div class="meter" role="img" aria-label="Budget spent">{bars}</div>'
    return section("budget", "Budget", f'{meter}<div class="keys">{keys}</div>', text)


def class_shares(data: RunData) -> str:
    """Revealed against truth, class by class, and how that grew."""
    if not data.rounds:
        return ""
    truth = data.results.get("true_class_pixels")
    revealed = data.rounds[-1]["class_pixels"]
    total, total_true = max(sum(revealed.values()), 1), max(sum((truth or {}).values()), 1)
    shares = {name: revealed[name] / total for name in revealed}
    true_shares = {name: truth[name] / total_true for name in truth} if truth else {}
    top = max([*shares.values(), *true_shares.values()], default=1.0) or 1.0
    rows = []
    for name, color in zip(data.class_names, data.class_colors, strict=True):
        if name not in shares:
            continue
        mine, true = shares[name], true_shares.get(name)
        factor = mine / true if true else None
        bar = f'<i style="width:{100 * math.sqrt(mine / top):.2f}%;background:{css(color)}"></i>'
        if true is not None:
            bar += f'<u style="left:{100 * math.sqrt(true / top):.2f}%"></u>'
        new = [
            pixels_of(one, earlier, name) for one, earlier in zip(data.rounds, [None, *data.rounds[:-1]], strict=True)
        ]
        most = max([*new, 1])
        growth = "".join(
            f'<i style="height:{max(4.0, 100 * value / most) if value else 0:.0f}%;'
            f'background:{css(palette.round_color(number))}" '
            f'title="round {number + 1}: {value:,} px"></i>'
            for number, value in enumerate(new)
        )
        tone = "" if factor is None else (" class=up" if factor >= 1.25 else (" class=down" if factor <= 0.8 else ""))
        rows.append(
            f"<tr><th>{swatch(color)}{escape(name)}</th><td>{share(true)}</td><td>{share(mine)}</td>"
            f"<td{tone}>{'–' if factor is None else f'× {factor:.1f}'}</td><td class=wide><div class=bar>{bar}</div></td>"
            f"<td>{revealed[name]:,}</td><td><div class=growth>{growth}</div></td></tr>"
        )
    table = (
        '<div class="scroll"><table id="shares"><thead><tr><th>class</th><th>truth</th><th>revealed</th><th>factor</th>'
        "<th>bar: revealed, tick: truth (square-root scale)</th><th>pixels</th><th>new in each round</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    missing = "" if truth else " The true shares were not recorded, or there are no labels."
    return section(
        "shares", "Where the budget went, by class", table, f"Shares of the revealed pixels, void left out.{missing}"
    )


def pixels_of(one: Mapping[str, Any], earlier: Mapping[str, Any] | None, name: str) -> int:
    """Pixels of a class that a round revealed, also where only the sums were recorded."""
    if "new_class_pixels" in one:
        return int(one["new_class_pixels"][name])
    return int(one["class_pixels"][name]) - (int(earlier["class_pixels"][name]) if earlier else 0)


def class_scores(data: RunData) -> str:
    """IoU by class before and after, and the classes that still starve."""
    known = [one for one in data.curve if one.get("per_class_iou")]
    if not known:
        return section("classes", "IoU by class", '<p class="missing">No evaluation yet.</p>')
    after = known[-1]
    step = data.rounds[0]["step"] if data.rounds else None
    before = next((one for one in known if one["step"] == step), known[0])
    has_before = before is not after
    revealed = data.rounds[-1]["class_pixels"] if data.rounds else {}
    usual = float(np.median(list(revealed.values()))) if revealed else 0.0
    rows, starving = [], []
    for name, color in zip(data.class_names, data.class_colors, strict=True):
        late, early = after["per_class_iou"].get(name), before["per_class_iou"].get(name)
        is_starving = late is not None and late < STARVING * after["mIoU"]
        why = ""
        if is_starving:
            starving.append(name)
            if revealed:
                why = "few labels" if revealed.get(name, 0) < 0.25 * usual else "labelled, not learnt"
            why = f'<span class="starving">{why or "low"}</span>'
        bar = f'<i style="width:{late or 0:.2f}%;background:{css(color)}"></i>'
        if has_before and early is not None:
            bar += f'<u style="left:{early:.2f}%"></u>'
        difference = late - early if has_before and None not in (late, early) else None
        tone = "" if difference is None or abs(difference) < 1 else (" class=up" if difference > 0 else " class=down")
        middle = f"<td>{points(early, 1)}</td>" if has_before else ""
        gain = f"<td{tone}>{signed(difference)}</td>" if has_before else ""
        rows.append(
            f"<tr><th>{swatch(color)}{escape(name)}</th>{middle}<td data-iou>{points(late, 1)}</td>{gain}"
            f"<td class=wide><div class=bar>{bar}</div></td><td>{why}</td></tr>"
        )
    middle = "<th>before</th>" if has_before else ""
    gain = "<th>gain</th>" if has_before else ""
    text = (
        f"Still starving (below half the mean of {points(after['mIoU'], 1)}): <b>{escape(', '.join(starving))}</b>."
        if starving
        else f"No class is below half the mean of {points(after['mIoU'], 1)}."
    )
    body = (
        f'<div class="scroll"><table id="iou"><thead><tr><th>class</th>{middle}<th>after</th>{gain}<th>bar: after'
        f"{', tick: before' if has_before else ''} (0 to 100)</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return section("classes", "IoU by class", body, text)


def confusion(data: RunData) -> str:
    """The confusion matrix of the last evaluation, and its largest mistakes."""
    if not data.evaluations:
        return ""
    last = data.evaluations[-1]
    if last.confusion.shape[0] != len(data.class_names):
        return ""
    wrong: NDArray[np.int64] = last.confusion.copy()
    np.fill_diagonal(wrong, 0)
    total = max(int(last.confusion.sum()), 1)
    order = np.argsort(wrong, axis=None)[::-1][:5]
    worst = [divmod(int(place), wrong.shape[0]) for place in order if wrong.reshape(-1)[place] > 0]
    listed = "; ".join(
        f"{escape(data.class_names[row])} taken for {escape(data.class_names[column])} ({share(wrong[row, column] / total)})"
        for row, column in worst
    )
    lead = (
        "Rows are truth, columns prediction, in percent of the truth. Largest mistakes, as shares of all pixels: "
        f"{listed or 'none'}."
    )
    return section(
        "confusion",
        "Confusion matrix",
        f'<div class="scroll">{confusion_matrix(last.confusion, data.class_names)}</div>',
        lead,
    )


def calibration(data: RunData) -> str:
    """Whether confidence means what it says."""
    shown = _before_and_after(data)
    if not shown:
        return ""
    keys = " · ".join(
        f'<i class="swatch" style="background:{color}"></i>{escape(name)}: ECE <b>{one.calibration_error:.2f} %</b>'
        for name, color, one in shown
    )
    chart = reliability([(name, color, one.bins) for name, color, one in shown])
    lead = (
        f"{keys}. Below the dotted line the network is surer than it is right. Validation images, every other pixel in both "
        "directions, 15 bins; dots grow with the share of the pixels."
    )
    return section("calibration", "Calibration", f'<div class="narrow">{chart}</div>', lead)


def _before_and_after(data: RunData) -> list[tuple[str, str, Evaluation]]:
    every = data.evaluations
    if not every:
        return []
    step = data.rounds[0]["step"] if data.rounds else every[0].step
    first = next((one for one in every if one.step >= step), every[0])
    named = [(f"before the first round (step {first.step})", FIRST, first)] if first is not every[-1] else []
    return [*named, (f"{'final' if every[-1].is_final else 'last'} (step {every[-1].step})", LAST, every[-1])]


def hardest(data: RunData, most: int = 6) -> str:
    """The validation images that went worst."""
    if not data.evaluations:
        return ""
    last = data.evaluations[-1]
    order = [int(row) for row in np.argsort(last.images[:, 1]) if np.isfinite(last.images[row, 1])][:most]
    cards = []
    for row in order:
        index = int(last.images[row, 0])
        name = data.val_ids[index] if index < len(data.val_ids) else str(index)
        pictures = ""
        if last.is_final:
            for kind, word in (("image.jpg", "image"), ("truth.png", "truth"), ("after.png", "prediction")):
                read = picture_url if word == "image" else painted_url
                url = read(data, f"val-{index:05d}-{kind}", MOST_WIDTH // 2)
                if url:
                    pictures += f'<figure><img src="{url}" alt="{word}"><figcaption>{word}</figcaption></figure>'
        cards.append(
            f'<article class="hard"><h3>{escape(name)}</h3><p>mIoU {last.images[row, 1]:.1f}, {last.images[row, 2]:.1f} % of '
            f'the pixels right</p><div class="triple">{pictures}</div></article>'
        )
    spread = last.images[np.isfinite(last.images[:, 1]), 1]
    lead = (
        "Validation images by their own mIoU (over the classes in the image or its prediction): "
        f"median {np.median(spread):.1f}, worst {spread.min():.1f}, best {spread.max():.1f} of {len(spread)}."
        if len(spread)
        else ""
    )
    keys = "".join(
        f"<span>{swatch(color)}{escape(name)}</span>"
        for name, color in zip(data.class_names, data.class_colors, strict=True)
    )
    return section(
        "hardest", "Hardest images", f'<div class="keys">{keys}</div><div class="cards">{"".join(cards)}</div>', lead
    )


def gallery(data: RunData) -> str:
    """The place that the script fills with the gallery; sheets of an older run where nothing was recorded."""
    if not data.gallery:
        sheets = "".join(
            f'<figure><img loading="lazy" src="{url}" alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></figure>'
            for name, url in old_pictures(data)
        )
        return section("gallery", "Pictures", f'<div class="sheets">{sheets}</div>') if sheets else ""
    lead = f"{len(data.gallery)} target images, spread evenly. Choose a layer; click an image to look closer."
    return section("gallery", "Gallery", '<div id="controls"></div><div id="legend"></div><div id="grid"></div>', lead)


def reproduce(data: RunData) -> str:
    """Command, provenance and the exact configuration."""
    provenance = dict(data.results.get("provenance") or {})
    command = str(provenance.pop("command", "") or "")
    facts = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>"
        for key, value in provenance.items()
        if value is not None
    )
    seconds = data.results.get("seconds") or {}
    facts += "".join(f"<tr><th>seconds, {escape(key)}</th><td>{value:,.1f}</td></tr>" for key, value in seconds.items())
    body = (
        f'<pre id="command">{escape(command)}</pre>'
        if command
        else '<p class="missing">The command is recorded when the run begins its rounds.</p>'
    )
    if facts:
        body += f'<table class="facts"><tbody>{facts}</tbody></table>'
    if data.config_text:
        body += f"<details><summary>config.yaml</summary><pre>{escape(data.config_text)}</pre></details>"
    return section("reproduce", "Command and configuration", body)
