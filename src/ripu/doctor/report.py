"""The doctor's report: tables for people, a mapping for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ripu.datasets.scenes import SceneDataset
from ripu.doctor.checks import ERROR, NOTE, WARNING, Finding, class_pixels
from ripu.doctor.reading import SceneFacts

RARE = 0.0005  # share of the labelled pixels below which a class is marked as rare


def as_mapping(
    parts: Mapping[str, SceneDataset], facts: Mapping[str, Sequence[SceneFacts]], findings: Sequence[Finding]
) -> dict[str, Any]:
    """Return the verdict (``fit``, ``fit with warnings`` or ``unfit``), the findings, and the figures of each part.

    ``size`` is the most common one, as width and height; ``class_shares`` are of the pixels that have a class.
    """
    levels = {finding.level for finding in findings}
    verdict = "unfit" if ERROR in levels else "fit with warnings" if WARNING in levels else "fit"
    result: dict[str, Any] = {"verdict": verdict, "findings": [asdict(one) for one in findings], "parts": {}}
    for name, scenes in parts.items():
        pixels = class_pixels(scenes.taxonomy, facts[name])
        known, total = int(pixels[:-1].sum()), int(pixels.sum())
        sizes = [one.image_size for one in facts[name] if one.image_size]
        height, width = max(set(sizes), key=sizes.count) if sizes else (0, 0)
        result["parts"][name] = {
            "name": scenes.name,
            "images": len(scenes),
            "labelled": sum(scene.label is not None for scene in scenes.scenes),
            "readable": sum(not (one.image_fault or one.label_fault) for one in facts[name]),
            "size": [width, height],
            "void_fraction": int(pixels[-1]) / total if total else None,
            "class_shares": {
                one: int(count) / known if known else None
                for one, count in zip(scenes.taxonomy.class_names, pixels[:-1], strict=True)
            },
        }
    return result


def text(report: Mapping[str, Any]) -> str:
    """Return the tables, the findings and the verdict as text."""
    parts = report["parts"]
    width = max(12, *(len(name) + 2 for name in parts))

    def line(name: str, cells: Sequence[str]) -> str:
        return f"{name:<22}" + "".join(f"{cell:>{width}}" for cell in cells)

    def percent(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{100 * value:.{digits}f}"

    lines = [
        line("", list(parts)),
        *(line(key, [str(part[key]) for part in parts.values()]) for key in ("images", "labelled", "readable")),
        line("size", ["{} x {}".format(*part["size"]) for part in parts.values()]),
        line("void (%)", [percent(part["void_fraction"], 1) for part in parts.values()]),
        "",
        "pixels by class, without void (%)",
    ]
    names = list(dict.fromkeys(name for part in parts.values() for name in part["class_shares"]))
    for name in names:
        shares = [part["class_shares"].get(name) for part in parts.values()]
        is_rare = any(share is not None and share < RARE for share in shares)
        lines.append(line(f"  {name}", [percent(share, 2) for share in shares]) + ("   rare" if is_rare else ""))
    if report["findings"]:
        lines.append("")
    for finding in report["findings"]:
        lines.append(f"{finding['level']:<8} {finding['part']}: {finding['what']}")
        shown = [f"           {example}" for example in finding["examples"]]
        left = finding["count"] - len(shown)
        lines += shown + ([f"           and {left} more"] if shown and left > 0 else [])
        lines.append(f"         -> {finding['remedy']}")
    counts = {level: sum(one["level"] == level for one in report["findings"]) for level in (ERROR, WARNING, NOTE)}
    summary = ", ".join(f"{count} {level}{'s' if count != 1 else ''}" for level, count in counts.items() if count)
    meaning = {
        "fit": "fit for training",
        "fit with warnings": "fit for training; look at the warnings first",
        "unfit": "not fit for training: see the errors",
    }
    verdict_line = f"verdict: {meaning[report['verdict']]}" + (f" ({summary})" if summary else "")
    return "\n".join([*lines, "", verdict_line])
