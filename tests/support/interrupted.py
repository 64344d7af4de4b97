"""``python -m interrupted MOMENT ...``: ``ripu.train`` that gets Ctrl-C at a named moment of its work."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import Any


def strike(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def before(owner: Any, name: str, call: int = 1) -> None:
    """Strike at the n-th call of a function, before it does anything."""
    act, calls = getattr(owner, name), 0

    def struck(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            strike()
        return act(*args, **more)

    setattr(owner, name, struck)


class AtImport:
    """An import hook that strikes when Hydra is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "hydra":
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            strike()


def arm(moment: str) -> None:
    if moment == "imports":
        sys.meta_path.insert(0, AtImport())  # type: ignore[arg-type]
        return
    from ripu.run import lifecycle

    if moment == "setup":
        before(lifecycle, "make_scenes")
        return
    from ripu.module import RipuModule
    from ripu.objectives import RipuObjective
    from ripu.selection.scoring import Scorer

    if moment == "training":
        before(RipuObjective, "revealed_terms", 3)  # in the middle of a step
    elif moment == "round":
        before(Scorer, "candidates", 5)
    elif moment == "evaluation":
        before(RipuModule, "_evaluate_batch", 2)
    elif moment == "test":
        before(RipuModule, "_evaluate_batch", 4)
    elif moment == "report":
        before(lifecycle, "report")


if __name__ == "__main__":
    moment = sys.argv.pop(1)
    arm(moment)
    sys.argv[0] = "ripu.train"
    runpy.run_module("ripu.train", run_name="__main__", alter_sys=True)
