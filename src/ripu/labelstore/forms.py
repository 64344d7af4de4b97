"""The form of a store's JSON documents: a right checksum over something else is damage too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ripu.labelstore.errors import CorruptStoreError

FORMAT = "ripu-labels"
VERSION = 1

_ENTRY = {"name": str, "num_bytes": int, "sha256": str, "index_sha256": str}
_ROUND = {"index": int, "step": int, "budget": int, "reveal_radius": int, "suppress_radius": int, "info": dict}
_EVENTS: dict[str, dict[str, Any]] = {
    "round": {"round": _ROUND, "content_sha256": str, "file": _ENTRY},
    "carried": {"round": _ROUND, "content_sha256": str, "file": _ENTRY},
    "answers": {"file": _ENTRY},
    "undo": {"index": int},
}
_NAME = re.compile(r"((?:round|carried)-\d{3,}|answers)-[0-9a-f]{16}\.dat")
_HEX = re.compile(r"[0-9a-f]{64}")
_MOST = 2**62


def check_header_form(path: Path, body: Mapping[str, Any]) -> None:
    """Check ``store.json``.

    Raises:
        CorruptStoreError: It is of another version or form; names the file and what is wrong in it.
    """
    _check_version(path, body)
    _check(path, body, {"images": list, "class_names": list, "metadata": dict}, "")
    plan = body.get("planned_picks", "missing")
    if plan is not None and not _is_count(plan):
        raise damage(path, f"planned_picks is {plan!r}")
    for image in body["images"]:
        if not (isinstance(image, list) and len(image) == 3):
            raise damage(path, f"{image!r} is not an image with height and width")


def check_log_form(path: Path, body: Mapping[str, Any]) -> None:
    """Check ``manifest.json``.

    Raises:
        CorruptStoreError: It is of another version or form; names the file and what is wrong in it.
    """
    _check_version(path, body)
    _check(path, body, {"log": list, "store_sha256": str}, "")
    for number, event in enumerate(body["log"]):
        where = f"event {number}: "
        kind = event.get("event") if isinstance(event, dict) else None
        if not isinstance(kind, str) or kind not in _EVENTS:
            raise damage(path, f"{where}{kind!r} is none of {', '.join(_EVENTS)}")
        _check(path, event, _EVENTS[kind], where)
        if "file" in _EVENTS[kind] and not _NAME.fullmatch(event["file"]["name"]):
            raise damage(path, f"{where}file.name is {event['file']['name']!r}")


def damage(path: Path, what: object) -> CorruptStoreError:
    """Return the error for a document that says what no store says."""
    return CorruptStoreError(
        f"{path}: {what}, which this software did not write; restore the file from a copy of the run"
    )


def _check_version(path: Path, body: Mapping[str, Any]) -> None:
    found = body.get("format"), body.get("version")
    if found != (FORMAT, VERSION):
        raise CorruptStoreError(
            f"{path}: format {found[0]!r} version {found[1]!r}, this software reads {FORMAT!r} version {VERSION}; use "
            "the software that wrote it"
        )


def _check(path: Path, value: Any, form: Mapping[str, Any], where: str) -> None:
    for name, wanted in form.items():
        if not isinstance(value, dict) or name not in value:
            raise damage(path, f"{where}{name} is missing")
        found = value[name]
        if isinstance(wanted, dict):
            if not isinstance(found, dict) or found.keys() != wanted.keys():
                raise damage(path, f"{where}{name} does not have the keys {', '.join(wanted)}")
            _check(path, found, wanted, f"{where}{name}.")
        elif not isinstance(found, wanted) or (wanted is int and not _is_count(found)):
            raise damage(path, f"{where}{name} is {found!r}")
        elif name.endswith("sha256") and not _HEX.fullmatch(found):
            raise damage(path, f"{where}{name} is not a SHA-256")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST
