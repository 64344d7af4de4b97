"""Reader of the log of an offline W&B run: protocol buffers in the record format of LevelDB."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def chunks(data: bytes) -> Iterator[bytes]:
    """Yield the records of a ``.wandb`` file."""
    assert data[:4] == b":W&B"
    place, pieces = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # the rest of the block is too short for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        body = data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        pieces = body if kind in (FULL, FIRST) else pieces + body
        if kind in (FULL, LAST):
            yield pieces


@dataclass
class Content:
    """The content of a log.

    Attributes:
        history: One mapping per call of ``log``.
        axes: The axis of each metric.
        config: The configuration.
        run: Id, group and tags.
        artifacts: Artifacts in order.
        exit_code: The exit status of the run; None if it did not end properly.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    run: Any = None
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    def rows(self, key: str) -> list[dict[str, Any]]:
        """Return the rows that contain a key."""
        return [row for row in self.history if key in row]


def read(file: Path) -> Content:
    """Read the log of a run."""
    from wandb.proto import wandb_internal_pb2 as pb

    content = Content()
    for chunk in chunks(file.read_bytes()):
        record = pb.Record()
        record.ParseFromString(chunk)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in record.history.item}
            content.history.append(row)
        elif kind == "metric" and (name := record.metric.name or record.metric.glob_name):
            content.axes[name] = record.metric.step_metric or ""
        elif kind == "run":
            content.run = record.run
            content.config |= {one.key: json.loads(one.value_json) for one in record.run.config.update if one.key}
        elif kind == "config":
            content.config |= {one.key: json.loads(one.value_json) for one in record.config.update if one.key}
        elif kind == "artifact":
            content.artifacts.append(record.artifact)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            content.artifacts.append(record.request.log_artifact.artifact)
        elif kind == "exit":
            content.exit_code = record.exit.exit_code
    return content


def only(run: Path) -> Path:
    """Return the only W&B log below a run's folder."""
    (found,) = run.glob("wandb/*run-*/run-*.wandb")
    return found
