"""Runs of the methods of conf/method: what each needs for two rounds or renewals in a few steps."""

from __future__ import annotations

from pathlib import Path

from ripu.config.validate import config_dir
from ripu.translate import translate
from running import compose, spec_of, untrained_checkpoint

METHODS = sorted(path.stem for path in (Path(config_dir()) / "method").glob("*.yaml"))
OTHERS = [name for name in METHODS if name != "ripu"]


def words(name: str) -> tuple[str, ...]:
    """Two rounds, or two renewals, in a run of 7 steps."""
    spec = spec_of(compose(f"method={name}"))
    found = [f"method={name}"]
    if spec.has_rounds:
        found += ["selection_steps=[2,4]", "pretrain_steps=1"]
    if spec.query is not None and spec.query.pixel:
        found.append("budget=4")
    if spec.plan.renewal_steps:
        steps = "3,5" if spec.has_rounds else "2,4" if spec.setting.uses_source else "0,4"
        found.append(f"renewal_steps=[{steps}]")
    if "teacher_decay" in (spec.method.node or {}):
        found.append("ema.decay=0.9")
    if "first_phase" in (spec.method.node or {}):
        found.append("method.first_phase=1")
    if not spec.has_rounds and spec.method.pretrain_fraction is not None:
        found.append("pretrain_steps=1")
    return tuple(found)


def files_of(folder: Path, name: str, data_root: Path) -> tuple[str, ...]:
    """The network that a method begins with or learns from, and the translated images that it reads, if any."""
    spec = spec_of(compose(f"method={name}"))
    keys = ["model.checkpoint"] if spec.setting.needs_network else []
    keys += ["method.previous"] if "previous" in (spec.method.node or {}) else []
    if keys and not (folder / "final.ckpt").exists():
        untrained_checkpoint(folder)
    found = [f"{key}={folder / 'final.ckpt'}" for key in keys]
    if "translated" in (spec.method.node or {}):
        translated = folder / "translated"
        if not translated.exists():
            words = ("dataset=camvid", f"paths.data_root={data_root}", f"output={translated}")
            translate(compose(*words, config_name="translate"))
        found.append(f"method.translated={translated}")
    return tuple(found)


def pseudo_bytes(run: Path) -> dict[str, bytes]:
    folder = run / "pseudo_labels"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
