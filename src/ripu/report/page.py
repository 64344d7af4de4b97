"""The round report of a run: one HTML file that needs no network and opens with a double click."""

from __future__ import annotations

import logging
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ripu.inference import palette
from ripu.io.writing import write_bytes
from ripu.report import sections
from ripu.report.gallery import gallery_items
from ripu.report.rundata import RunData, of_known_form, read_run

_log = logging.getLogger(__name__)


def write_page(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run, finished or not, to ``report.html`` in its folder or to ``out``; return the file.

    Raises:
        RunError: The folder contains no run.
    """
    path = out or run / "report.html"
    with of_known_form(run):
        page = make_page(read_run(run))
    write_bytes(path, page.encode())
    return path


def try_page(run: Path) -> None:
    """Write the report of a run; a failure is logged and does not end the run."""
    from jinja2 import TemplateError

    try:
        write_page(run)
    except (OSError, ValueError, TemplateError) as error:  # an earlier record is damaged
        _log.warning("the report of %s was not written: %s", run, error)


def make_page(data: RunData) -> str:
    """Return the report as HTML."""
    items = gallery_items(data)
    classes = list(zip(data.class_names, data.class_colors, strict=True))
    words = [str(data.results[key]) for key in ("dataset", "mode", "setting") if data.results.get(key)]
    page: str = template("page.html").render(
        title=" ".join(words) or data.run.name,
        data=data,
        head=sections.head(data),
        sections=sections.sections(data),
        classes=classes,
        items=items,
        shared={
            "classes": [{"name": name, "color": list(color)} for name, color in classes],
            "rounds": [one["step"] for one in data.rounds],
            "roundColors": [list(color) for color in palette.ROUNDS],
            "heat": palette.heat(np.arange(256.0)[None], 255.0)[0].tolist() if items else [],
        },
        style=asset("page.css"),
        script=asset("page.js"),
    )
    return page


def asset(name: str) -> Any:
    """Return a file of ``assets/`` as text that a template does not escape."""
    from markupsafe import Markup

    return Markup((resources.files("ripu.report") / "assets" / name).read_text("utf-8"))  # noqa: S704  (our own files)


@cache
def template(name: str) -> Any:
    """Return a template of ``templates/``, with the filters that all of them use."""
    import jinja2  # needed only to write a page

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ripu.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {
        "points": sections.points,
        "signed": sections.signed,
        "share": sections.share,
        "css": sections.css,
        "count": "{:,}".format,
        "px": "{:.1f}".format,
    }
    return environment.get_template(name)
