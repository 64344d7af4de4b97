"""Reads what an offline W&B run has written: records of the log format of LevelDB, each a protocol buffer."""

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
    """The records of a ``.wandb`` file."""
    assert data[:4] == b":W&B"
    place, pieces = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # no header fits into what is left of the block
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
    """What was logged.

    Attributes:
        history: One mapping a call of ``log``.
        axes: By name of a metric, the name of its axis.
        config: The configuration.
        run: Id, group and tags.
        artifacts: Artifacts in order.
        is_closed: Whether the run ended properly, and with which status.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    run: Any = None
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    def rows(self, key: str) -> list[dict[str, Any]]:
        """Rows that hold a key."""
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
    """The one W&B log below a run's folder."""
    (found,) = run.glob("wandb/*run-*/run-*.wandb")
    return found
