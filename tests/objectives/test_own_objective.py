"""An objective of one's own: one class and one yaml, with nothing but the members of the interface."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ripu.losses import supervised_loss
from running import train_here


@dataclass(frozen=True)
class Bare:
    weight: float = 1.0
    needs_teacher: ClassVar[bool] = False

    def source_terms(self, student: Any, batch: Any, *, is_adapting: bool) -> dict[str, Tensor]:
        return {"mine": self.weight * supervised_loss(student(batch["image"]), batch["label"])}

    def target_terms(self, student: Any, batch: Any, *, source: Any, teacher: Any) -> dict[str, Tensor]:
        assert source is not None
        assert teacher is None
        return {"yours": supervised_loss(student(batch["image"]), batch["label"])}


def test_it_trains_and_its_checkpoint_can_be_used(data_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("objective._target_=test_own_objective.Bare", "+objective.weight=0.5")
    # the arguments of the paper's objective are not its own
    gone = ("~objective.consistency_weight", "~objective.negative_weight", "~objective.negative_threshold")
    train_here(data_root, run, *words, *gone, "~objective.class_balance", "ema.decay=null")
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert all(float(row["train/mine"]) > 0 for row in rows)
    assert "train/source_ce" not in rows[0]
    from ripu.run.restore import restore

    spec, module = restore(run / "checkpoints" / "final.ckpt")
    assert type(module.objective).__name__ == "Bare"
    assert spec.objective["weight"] == 0.5
