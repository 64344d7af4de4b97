"""Self-kill at a chosen point of a run, loaded into the real command by a ``sitecustomize`` module.

The package knows nothing of this. The environment variable ``STRIKE`` is a JSON object that describes the point.
``STRIKE_MARKER`` names a file that is written and synced just before the kill, as proof that the point was reached.

Each ``kind`` of point has further keys:

step        ``step``, ``when``: before or after a training step (after: the optimiser has acted, no callback has)
validate    ``step``: in the first batch of the evaluation at a step
test        in the first batch of the final evaluation
score       ``round``, ``images``: when this many images of a round have been scored
half        ``label``, ``round``, ``count``: halfway through a write to a store file, after ``count`` others
committed   ``round``: right after its commit
checkpoint  ``name``, ``when``: before, halfway through (half) or after writing a checkpoint
fsync, replace, unlink   ``name``: pattern of the target; ``when``: before or after; ``round``: only in that round

``rank`` selects the process of a job; the default is 0.
"""

from __future__ import annotations

import fnmatch
import importlib.abc
import importlib.util
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Strike:
    """Wait for a point and kill this process there."""

    def __init__(self, point: dict[str, Any], marker: Path) -> None:
        self.point = point
        self.marker = marker
        self.pid = os.getpid()
        self.round: int | None = None
        self._fsync = os.fsync
        self._seen = 0

    def now(self) -> None:
        """Strike, unless this is a forked worker."""
        if os.getpid() != self.pid:
            return
        fd = os.open(self.marker, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, (json.dumps({**self.point, "pid": self.pid}) + "\n").encode())
        self._fsync(fd)
        os.close(fd)
        os.kill(self.pid, signal.SIGKILL)
        signal.pause()

    def fits(self, **found: Any) -> bool:
        """Compare an event with the point; skip the first ``count`` matches."""
        for key, value in found.items():
            wanted = self.point.get(key)
            if key == "name":
                if not fnmatch.fnmatch(str(value), wanted):
                    return False
            elif wanted is not None and wanted != value:
                return False
        if "round" in self.point and self.point["round"] != self.round:
            return False
        self._seen += 1
        return self._seen > self.point.get("count", 0)

    # ---- what is watched

    def watch_files(self) -> None:
        """Watch renames, syncs and removals."""

        def guarded(kind: str, work: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                hit = self.point["kind"] == kind and self.fits(name=name_of(*args))
                if hit and self.point["when"] == "before":
                    self.now()
                result = work(*args, **kwargs)
                if hit:
                    self.now()
                return result

            return call

        def of_handle(handle: Any) -> str:
            number = handle if isinstance(handle, int) else handle.fileno()
            return Path(os.readlink(f"/proc/self/fd/{number}")).name

        os.replace = guarded("replace", os.replace, lambda source, target, **_: Path(target).name)
        os.fsync = guarded("fsync", os.fsync, of_handle)
        Path.unlink = guarded("unlink", Path.unlink, lambda path, *_: path.name)  # type: ignore[method-assign]

    def watch_module(self, module: Any) -> None:
        """Watch training steps and evaluations."""
        owner = module.RipuModule
        step, validate, test = owner.training_step, owner.validation_step, owner.test_step

        def training_step(this: Any, *args: Any) -> Any:
            hit = self.point["kind"] == "step" and self.fits(step=this.global_step)
            if hit and self.point["when"] == "before":
                self.now()
            result = step(this, *args)
            if hit:
                self.now()
            return result

        def validation_step(this: Any, *args: Any) -> Any:
            if self.point["kind"] == "validate" and self.fits(step=this.global_step):
                self.now()
            return validate(this, *args)

        def test_step(this: Any, *args: Any) -> Any:
            if self.point["kind"] == "test":
                self.now()
            return test(this, *args)

        owner.training_step, owner.validation_step, owner.test_step = training_step, validation_step, test_step

    def watch_store(self, module: Any) -> None:
        """Watch the beginning and the commit of rounds."""
        owner = module.LabelStore
        begin, commit = owner.begin_round, owner.commit_round

        def begin_round(this: Any, index: int, *args: Any, **kwargs: Any) -> Any:
            self.round = index
            return begin(this, index, *args, **kwargs)

        def commit_round(this: Any, *args: Any) -> Any:
            result = commit(this, *args)
            if self.point["kind"] == "committed" and self.fits():
                self.now()
            self.round = None
            return result

        owner.begin_round, owner.commit_round = begin_round, commit_round

    def watch_scorer(self, module: Any) -> None:
        """Watch the scoring of images."""
        owner = module.Scorer
        score = owner.candidates
        done = [0]

        def candidates(this: Any, *args: Any) -> Any:
            offer = score(this, *args)
            if self.point["kind"] == "score" and self.round == self.point["round"]:
                done[0] += 1
                if done[0] == self.point["images"]:
                    self.now()
            return offer

        owner.candidates = candidates

    def watch_writes(self, module: Any) -> None:
        """Watch writes to files that are renamed into place, such as those of the label store."""
        owner = module.AtomicFile
        write = owner.write

        def torn(this: Any, data: bytes) -> int:
            if self.point["kind"] == "half" and this.path.name == self.point["label"] and self.fits():
                write(this, data[: len(data) // 2])
                this._handle.flush()
                self.now()
            return write(this, data)

        owner.write = torn

    def watch_checkpoints(self, module: Any) -> None:
        """Watch checkpoints, which Lightning writes in one call."""
        save = module._atomic_save

        def torn(checkpoint: Any, path: Any) -> None:
            hit = self.point["kind"] == "checkpoint" and self.fits(name=Path(path).name)
            if hit and self.point["when"] == "before":
                self.now()
            if hit and self.point["when"] == "half":
                import torch

                buffer = io.BytesIO()
                torch.save(checkpoint, buffer)
                Path(path).write_bytes(buffer.getvalue()[: buffer.tell() // 2])
                self.now()
            save(checkpoint, path)
            if hit:
                self.now()

        module._atomic_save = torn


class _Hooks(importlib.abc.MetaPathFinder):
    """Call a function once a module has been imported."""

    def __init__(self, hooks: dict[str, Callable[[Any], None]]) -> None:
        self._hooks = hooks

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        hook = self._hooks.pop(name, None)
        if hook is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            hook(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def arm() -> None:
    """Wait for the point that the environment names, if it names one for this rank."""
    text = os.environ.get("STRIKE")
    if not text:
        return
    point = json.loads(text)
    if int(os.environ.get("LOCAL_RANK", "0")) != point.get("rank", 0):
        return
    strike = Strike(point, Path(os.environ["STRIKE_MARKER"]))
    strike.watch_files()
    hooks = {
        "ripu.module": strike.watch_module,
        "ripu.labelstore.store": strike.watch_store,
        "ripu.io.writing": strike.watch_writes,
        "ripu.selection.scoring": strike.watch_scorer,
        "lightning_fabric.plugins.io.torch_io": strike.watch_checkpoints,
    }
    for name in [name for name in hooks if name in sys.modules]:
        hooks.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _Hooks(hooks))
