"""The data of a run: its scenes, found or generated, and the data module that mixes them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ripu.config.spec import has_rounds, instantiate, make_plan, make_taxonomy, uses_source
from ripu.config.validate import locate
from ripu.datasets.scenes import Scenes
from ripu.io.errors import ConfigError

if TYPE_CHECKING:
    from ripu.datamodule import RipuDataModule
    from ripu.datasets.scenes import SceneDataset
    from ripu.datasets.taxonomy import Taxonomy
    from ripu.labelstore import LabelStore

_log = logging.getLogger(__name__)


def make_scenes(cfg: DictConfig) -> Scenes:
    """Find (or generate) the data of a run.

    Raises:
        DatasetNotFoundError: A data set is not there; says what to do.
        ConfigError: The data do not fit the setting.
    """
    taxonomy = make_taxonomy(cfg)
    parts = _checked_parts(cfg, taxonomy, ("source", "target", "val") if uses_source(cfg) else ("target", "val"))
    source, target, val = parts.get("source"), parts["target"], parts["val"]
    if cfg.setting.target_labels == "all" and not target.is_labelled:
        raise ConfigError(f"setting=fully_supervised needs every label of {target.name}, and some are missing")
    unlabelled = sum(1 for scene in target.scenes if scene.label is None)
    if unlabelled and has_rounds(cfg):
        _log.warning(
            "%d of the %d images of %s have no label, and nobody is here to answer: rounds ask about them, and what they "
            "ask stays unanswered, so training learns nothing from it (without any answer, a run is source training with "
            "negative learning). The run's labels/ folder keeps what was asked.",
            unlabelled,
            len(target),
            target.name,
        )
    return Scenes(source, target, val, taxonomy)


def make_val(cfg: DictConfig) -> SceneDataset:
    """The validation scenes of a run alone, for those who only measure; source and target need not be there.

    Raises:
        DatasetNotFoundError: The data set is not there; says what to do.
        ConfigError: It has scenes without labels, or other classes.
    """
    return _checked_parts(cfg, make_taxonomy(cfg), ("val",))["val"]


def _checked_parts(cfg: DictConfig, taxonomy: Taxonomy, names: Sequence[str]) -> dict[str, SceneDataset]:
    from ripu.doctor.examine import quick_check

    parts = load_parts(cfg, parts=names)
    if cfg.data.get("unreadable") == "skip":
        parts = {name: replace(part, part=name, on_unreadable="skip") for name, part in parts.items()}
    quick_check(parts)
    for name, why in (("source", "they cannot be trained on"), ("val", "nothing can be measured on them")):
        alone = [scene.image_id for scene in parts[name].scenes if scene.label is None] if name in parts else []
        if alone:
            raise ConfigError(
                f"{parts[name].name} has scenes without labels ({len(alone)} of {len(parts[name])}: {alone[:3]}), and {why}; "
                "add the labels, or take the images out"
            )
    for part in parts.values():
        if part.taxonomy.class_names != taxonomy.class_names:
            raise ConfigError(
                f"{part.name} must have the classes of dataset.taxonomy, {taxonomy.name}, in their order: "
                f"{list(taxonomy.class_names)}, and has {list(part.taxonomy.class_names)}"
            )
    return parts


def find_data(cfg: DictConfig) -> None:
    """Refuse data that are not there, before anything that takes time to import; generated scenes are made later.

    Raises:
        DatasetNotFoundError: A data set is not there; says what to do, and how to do without it.
    """
    from ripu.datasets.errors import DatasetNotFoundError

    if cfg.dataset.prepare is None:
        try:
            load_parts(cfg, lenient=True, parts=("source", "target", "val") if uses_source(cfg) else ("target", "val"))
        except DatasetNotFoundError as error:
            from hydra.core.hydra_config import HydraConfig

            words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
            raise error.for_command(list(words)) from None


def load_parts(
    cfg: DictConfig, *, lenient: bool = False, parts: Sequence[str] = ("source", "target", "val")
) -> dict[str, SceneDataset]:
    """Find (or generate) the source, target and validation scenes of a data set.

    Args:
        cfg: A configuration with a ``dataset``.
        parts: Which of them.
        lenient: Let pairs pass that do not belong together, for somebody who looks at them closer.

    Raises:
        DatasetNotFoundError: A data set is not there; says what to do.
    """
    if cfg.dataset.prepare is not None:
        instantiate(cfg.dataset.prepare)
    found = {}
    for part in parts:
        node = cfg.dataset[part]
        takes = inspect.signature(locate(str(node._target_), f"dataset.{part}._target_")).parameters
        more = {"verify": False} if lenient and "verify" in takes else {}
        if "unreadable" in takes and "unreadable" not in node and "data" in cfg:
            more["unreadable"] = cfg.data.get("unreadable", "stop")
        found[part] = instantiate(node, **more)
    return found


def check_transforms(cfg: DictConfig) -> None:
    """Make the augmentations once, before anything is written.

    Raises:
        ConfigError: One refuses what it is given.
    """
    for transform in cfg.data.transforms:
        instantiate(transform)


def make_datamodule(cfg: DictConfig, scenes: Scenes, store: LabelStore | None) -> RipuDataModule:
    """The data side of a run."""
    from ripu.datamodule import RipuDataModule
    from ripu.loading.class_balance import class_index, never_drawn
    from ripu.loading.image_cache import ImageCache

    labels = cfg.setting.target_labels
    classes = None
    if cfg.protocol.source_sampling == "class_balanced" and scenes.source is not None:
        classes = class_index(scenes.source, index_folder(cfg))
    datamodule = RipuDataModule(
        scenes.source,
        scenes.target if labels == "all" else scenes.target.without_labels(),
        scenes.val,
        plan=make_plan(cfg),
        seed=cfg.seed,
        source_size=tuple(cfg.data.source_size),
        target_size=tuple(cfg.data.target_size),
        source_batch=cfg.data.source_batch,
        target_batch=cfg.data.target_batch,
        uses_target=labels != "none",
        store=store,
        transforms=[instantiate(transform) for transform in cfg.data.transforms],
        accumulate=cfg.trainer.accumulate,
        num_workers=cfg.data.num_workers,
        eval_batch=cfg.evaluation.batch,
        source_classes=classes,
        cache=None if cfg.data.cache is None else ImageCache(cfg.data.cache),
    )
    if classes is not None and scenes.source is not None:
        datamodule.faults = never_drawn(scenes.source, classes)
    return datamodule


def index_folder(cfg: DictConfig) -> Path:
    """Where the class index of the source is kept."""
    return Path(cfg.data.cache or Path(cfg.paths.data_root) / ".ripu")
