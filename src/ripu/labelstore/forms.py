"""The form of the JSON documents of a store: a right checksum over something else is damage too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ripu.labelstore.errors import CorruptStoreError, LabelStoreError

_ENTRY = {"name": str, "num_bytes": int, "sha256": str, "index_sha256": str}
_ROUND = {"index": int, "step": int, "budget": int, "reveal_radius": int, "suppress_radius": int, "info": dict}
_EVENTS: dict[str, dict[str, Any]] = {
    "round": {"round": _ROUND, "content_sha256": str, "file": _ENTRY},
    "carried": {"round": _ROUND, "content_sha256": str, "file": _ENTRY},
    "answers": {"file": _ENTRY},
    "undo": {"index": int},
}
_HEX = re.compile(r"[0-9a-f]{64}")
_MOST = 2**62


def check_header_form(path: Path, body: Mapping[str, Any]) -> None:
    """Check ``store.json``.

    Raises:
        CorruptStoreError: Naming the file and what is wrong in it.
    """
    _fits(path, body, {"images": list, "class_names": list, "metadata": dict}, "")
    plan = body.get("planned_picks", "missing")
    if plan is not None and not _is_count(plan):
        raise _damage(path, f"planned_picks is {plan!r}")
    for image in body["images"]:
        if not (isinstance(image, list) and len(image) == 3):
            raise _damage(path, f"{image!r} is not an image with height and width")


def check_log_form(path: Path, body: Mapping[str, Any]) -> None:
    """Check ``manifest.json``.

    Raises:
        CorruptStoreError: Naming the file and what is wrong in it.
    """
    _fits(path, body, {"log": list, "store_sha256": str}, "")
    for number, event in enumerate(body["log"]):
        where = f"event {number}: "
        kind = event.get("event") if isinstance(event, dict) else None
        if not isinstance(kind, str) or kind not in _EVENTS:
            raise _damage(path, f"{where}{kind!r} is none of {', '.join(_EVENTS)}")
        _fits(path, event, _EVENTS[kind], where)


def _fits(path: Path, value: Any, form: Mapping[str, Any], where: str) -> None:
    for name, wanted in form.items():
        if not isinstance(value, dict) or name not in value:
            raise _damage(path, f"{where}{name} is missing")
        found = value[name]
        if isinstance(wanted, dict):
            if not isinstance(found, dict) or found.keys() != wanted.keys():
                raise _damage(path, f"{where}{name} does not have the keys {', '.join(wanted)}")
            _fits(path, found, wanted, f"{where}{name}.")
        elif not isinstance(found, wanted) or (wanted is int and not _is_count(found)):
            raise _damage(path, f"{where}{name} is {found!r}")
        elif name.endswith("sha256") and not _HEX.fullmatch(found):
            raise _damage(path, f"{where}{name} is no SHA-256")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _damage(path: Path, what: str) -> CorruptStoreError:
    return CorruptStoreError(
        f"{path}: {what}, which this software did not write; restore the file from a copy of the run"
    )


def as_damage(path: Path, error: LabelStoreError) -> CorruptStoreError:
    """A fault that was found in what a file says, as damage of the file."""
    return _damage(path, str(error))
