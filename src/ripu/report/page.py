"""The round report of a run: one HTML file that needs no network and opens by a double click."""

from __future__ import annotations

import json
import logging
import re
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ripu.inference import palette
from ripu.report import sections, storage
from ripu.report.gallery import gallery_items
from ripu.report.rundata import RunData, of_known_form, read_run

_log = logging.getLogger(__name__)

PAGE = "report.html"

_PARTS = (
    sections.learning_curve,
    sections.budget,
    sections.class_shares,
    sections.class_scores,
    sections.gallery,
    sections.confusion,
    sections.calibration,
    sections.hardest,
    sections.reproduce,
)


def write_page(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run, whole or not at all.

    Args:
        run: The run's folder, of a finished run or not.
        out: The file; ``report.html`` in the run's folder by default.

    Returns:
        The file.

    Raises:
        RunError: The folder holds no run.
    """
    path = out or run / PAGE
    with of_known_form(run):
        page = make_page(read_run(run))
    storage.write_bytes(path, page.encode())
    return path


def try_page(run: Path) -> None:
    """Write the report of a run; one that cannot be written is logged and does not end the run."""
    try:
        write_page(run)
    except (OSError, ValueError) as error:  # the second: what was recorded earlier is damaged
        _log.warning("the report of %s was not written: %s", run, error)


def make_page(data: RunData) -> str:
    """The report as HTML."""
    body = "".join(part(data) for part in _PARTS)
    links = "".join(
        f'<a href="#{name}">{title}</a>' for name, title in re.findall(r'<section id="(\w+)"><h2>([^<]+)</h2>', body)
    )
    title = (
        " ".join(str(data.results[key]) for key in ("dataset", "mode", "setting") if data.results.get(key))
        or data.run.name
    )
    items = gallery_items(data)
    content = "".join(
        f'<script type="application/json" class="item" data-name="{escape(item["id"], quote=True)}" '
        f'data-ratio="{item["width"]}/{item["height"]}">{_script_text(item)}</script>\n'
        for item in items
    )
    shared = {
        "classes": [
            {"name": name, "color": list(color)}
            for name, color in zip(data.class_names, data.class_colors, strict=True)
        ],
        "rounds": [one["step"] for one in data.rounds],
        "roundColors": [list(color) for color in palette.ROUNDS],
        "heat": palette.heat(np.arange(256.0)[None], 255.0)[0].tolist() if items else [],
    }
    style, script = ((resources.files("ripu.report") / "assets" / name).read_text() for name in ("page.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}: round report</title><style>{style}</style></head>\n"
        f"<body><nav><div>{links}</div></nav><main>{sections.head(data)}{body}</main>\n"
        f'<script type="application/json" id="page-data">{_script_text(shared)}</script>\n{content}'
        f"<script>{script}</script></body></html>\n"
    )


def _script_text(content: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
