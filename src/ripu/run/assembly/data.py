"""The data of a run: its scenes, found or generated, and the data module that mixes them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.config.migrate import read_stored
from ripu.config.nodes import instantiate
from ripu.config.parts import DatasetSpec
from ripu.config.spec import RunSpec
from ripu.config.validate import locate
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import ImageReader, read_header
from ripu.datasets.proportions import squashed
from ripu.datasets.scenes import Scenes
from ripu.datasets.translated import PARTS, with_translated
from ripu.datasets.value_ranges import MOST_FILES, measure_ranges, spread
from ripu.io.console import command_line, override
from ripu.io.errors import ConfigError

if TYPE_CHECKING:
    from ripu.datamodule import RipuDataModule
    from ripu.datasets.scenes import SceneDataset
    from ripu.labelstore import LabelStore

_log = logging.getLogger(__name__)


def make_scenes(spec: RunSpec) -> Scenes:
    """Find (or generate) the data of a run; refuse missing data, and data that do not fit the setting."""
    parts = _checked_parts(spec, _parts_of(spec))
    target = parts["target"]
    if spec.setting.target_labels == "all" and not target.is_labelled:
        raise ConfigError(f"setting={spec.setting.name} needs every label of {target.name}, but some are missing")
    unlabelled = sum(scene.label is None for scene in target.scenes)
    knows_nothing = not (spec.setting.uses_source or spec.setting.needs_network or spec.start.has_labels)
    if knows_nothing and unlabelled == len(target) and spec.person is None:
        raise ConfigError(
            f"setting={spec.setting.name} learns from revealed labels alone, but no image of {target.name} has a label "
            "and nobody is asked; let people answer (oracle=human), or give dataset.target.labels or start.labels"
        )
    if unlabelled and spec.has_rounds and spec.person is None:
        _log.warning(
            "%d of the %d images of %s have no label, and nobody can answer (oracle=human asks people): queries "
            "about them stay unanswered, and training learns nothing from them (without any answer, a run is source "
            "training with negative learning). The run's labels/ folder keeps the queries.",
            unlabelled,
            len(target),
            target.name,
        )
    parts |= {name: with_translated(parts[name], folder) for name, folder in translated_folders(spec).items()}
    return Scenes(parts.get("source"), parts["target"], parts["val"], spec.taxonomy)


_OF_DATA = ("--config-dir", "dataset", "paths.data_root=")
"""Beginnings of the words of a command line that say which data a run has."""


def translated_folders(spec: RunSpec) -> dict[str, Path]:
    """Return the folders of images in the style of the other domain by part; none if the method reads no such images.

    Raises:
        ConfigError: The method reads them, and there are none; says how to make them.
    """
    node = spec.method.node or {}
    if "translated" not in node:
        return {}
    given: str | None = node["translated"]
    root = Path("FOLDER" if given is None else given)
    found = {name: root / name for name in PARTS if (root / name).is_dir()}
    if given is None or not found:
        cause = "names no folder" if given is None else f"has neither {root / 'source'} nor {root / 'target'}"
        words = [*(word for word in spec.words if word.startswith(_OF_DATA)), override("output", root)]
        raise ConfigError(
            f"method.translated={'null' if given is None else given} {cause}; method={spec.method.name} reads images "
            f"in the style of the other domain: make them with {command_line('translate', words)}"
            f"{', then give method.translated=FOLDER' if given is None else ', or with a program of your own'}"
        )
    return found


def make_val(spec: RunSpec) -> SceneDataset:
    """Find the validation scenes for a command that only measures; source and target may be missing."""
    return _checked_parts(spec, ("val",))["val"]


def _parts_of(spec: RunSpec) -> tuple[str, ...]:
    return ("source", "target", "val") if spec.setting.uses_source else ("target", "val")


def _checked_parts(spec: RunSpec, names: Sequence[str]) -> dict[str, SceneDataset]:
    from ripu.doctor.examine import quick_check

    parts = load_parts(spec.dataset, spec.data.image_reader, unreadable=spec.data.unreadable, parts=names)
    parts = {name: replace(part, fit=spec.data.fit) for name, part in parts.items()}
    if spec.data.unreadable == "skip":
        parts = {name: replace(part, part=name, on_unreadable="skip") for name, part in parts.items()}
    quick_check(parts)
    _name_squashed(parts, spec)
    for name, why in (("source", "they cannot be trained on"), ("val", "nothing can be measured on them")):
        bare = [scene.image_id for scene in parts[name].scenes if scene.label is None] if name in parts else []
        if bare:
            raise ConfigError(
                f"{parts[name].name} has scenes without labels ({len(bare)} of {len(parts[name])}: {bare[:3]}), and "
                f"{why}; add the labels, or take the images out"
            )
    taxonomy = spec.taxonomy
    for part in parts.values():
        if part.taxonomy.class_names != taxonomy.class_names:
            raise ConfigError(
                f"{part.name} must have the classes of dataset.taxonomy, {taxonomy.name}, in their order: "
                f"{list(taxonomy.class_names)}, but has {list(part.taxonomy.class_names)}"
            )
    return parts


def _name_squashed(parts: Mapping[str, SceneDataset], spec: RunSpec) -> None:
    """Log the parts of a run that stretches images of other proportions; a few headers of each part are read."""
    if spec.data.fit != "stretch":
        return
    for name, part in parts.items():
        frame = spec.data.source_size if name == "source" else spec.data.target_size
        known: list[tuple[str, tuple[int, int]]] = []
        for index in spread(len(part), MOST_FILES):
            with suppress(SceneError):  # left to the code that needs the image
                known.append((part.scenes[index].image_id, read_header(part.scenes[index].image).size))
        if found := squashed([size for _, size in known], frame):
            image_id, (height, width) = known[found[0]]
            _log.warning(
                "%s: images of other proportions than %d x %d are stretched to it (%s is %d x %d); data.fit=pad keeps "
                "their proportions",
                part.name,
                frame[1],
                frame[0],
                image_id,
                width,
                height,
            )


def check_data(spec: RunSpec) -> None:
    """Refuse missing data before anything that takes time to import; generated scenes are made later."""
    from ripu.datasets.errors import DatasetNotFoundError

    if spec.dataset.prepare is None:
        try:
            load_parts(spec.dataset, spec.data.image_reader, is_lenient=True, parts=_parts_of(spec))
        except DatasetNotFoundError as error:
            raise error.for_command(spec.words) from None


def load_parts(
    dataset: DatasetSpec,
    reader: ImageReader | None = None,
    *,
    unreadable: str = "stop",
    is_lenient: bool = False,
    parts: Sequence[str] = ("source", "target", "val"),
) -> dict[str, SceneDataset]:
    """Find (or generate) the source, target and validation scenes of a data set, or some of them.

    Args:
        dataset: The data set.
        reader: Reads the images; None as colour.
        unreadable: ``stop`` or ``skip`` files that cannot be read.
        is_lenient: Let pairs pass that do not belong together, for a command that looks at them more closely.
        parts: The scenes to find.

    Raises:
        DatasetNotFoundError: A data set is missing; says what to do.
    """
    if dataset.prepare is not None:
        instantiate(dataset.prepare)
    found = {}
    for part in parts:
        node = getattr(dataset, part)
        takes = inspect.signature(locate(str(node["_target_"]), f"dataset.{part}._target_")).parameters
        more: dict[str, Any] = {"verify": False} if is_lenient and "verify" in takes else {}
        if "unreadable" in takes and "unreadable" not in node:
            more["unreadable"] = unreadable
        found[part] = replace(instantiate(node, **more), image_reader=reader or ImageReader())
    return found


def with_measured_range(spec: RunSpec) -> RunSpec:
    """Return a run whose range of values is known: as it was measured when the run began, else measured now.

    Only with ``data.value_range=percentiles``; any other run is returned as it is.

    Raises:
        SceneError: A target image cannot be read.
    """
    if not spec.data.measures:
        return spec
    record, measured = spec.output_dir / "config.yaml", None
    if spec.resume and record.exists():
        measured = read_stored(record).get("data", {}).get("measured_range")
    if measured is None:
        parts = load_parts(spec.dataset, spec.data.image_reader, unreadable=spec.data.unreadable, parts=("target",))
        paths = [scene.image for scene in parts["target"].scenes]
        measured = measure_ranges(paths, spec.data.image_reader, skips=spec.data.unreadable == "skip")
    data = {**spec.config["data"], "measured_range": measured}
    return replace(spec, config={**spec.config, "data": data}, data=replace(spec.data, measured_range=measured))


def make_transforms(spec: RunSpec) -> list[Any]:
    """Make the augmentations of a run; leave out, with a warning, those that cannot change images of its bands."""
    transforms = [instantiate(transform) for transform in spec.data.transforms]
    num_bands = spec.data.image_reader.num_bands
    if num_bands == 3:
        return transforms
    kept = [transform for transform in transforms if _can_change(transform, num_bands)]
    if left := [type(transform).__name__ for transform in transforms if transform not in kept]:
        _log.warning(
            "data.transforms: %s left out, since %s for images of 1 or 3 bands and these have %d",
            ", ".join(left),
            "it is" if len(left) == 1 else "they are",
            num_bands,
        )
    return kept


def _can_change(transform: Any, num_bands: int) -> bool:
    import albumentations
    import numpy as np

    sure = deepcopy(transform)
    sure.p = 1.0
    try:
        albumentations.Compose([sure], seed=0)(
            image=np.full((64, 64, num_bands), 128, np.uint8), mask=np.zeros((64, 64), np.uint8)
        )
    except TypeError as error:
        return "channel" not in str(error)
    except Exception:  # e.g. a crop larger than this image: training will tell
        return True
    return True


def make_datamodule(spec: RunSpec, scenes: Scenes, store: LabelStore | None) -> RipuDataModule:
    """Make the data module of a run."""
    from ripu.datamodule import RipuDataModule
    from ripu.loading.class_balance import class_index, never_drawn
    from ripu.loading.image_cache import ImageCache

    labels = spec.setting.target_labels
    classes = None
    if spec.protocol.source_sampling == "class_balanced" and scenes.source is not None:
        classes = class_index(scenes.source, index_folder(spec))
    datamodule = RipuDataModule(
        scenes.source,
        scenes.target if labels == "all" else scenes.target.without_labels(),
        scenes.val,
        plan=spec.plan,
        seed=spec.seed,
        source_size=spec.data.source_size,
        target_size=spec.data.target_size,
        source_batch=spec.data.source_batch,
        target_batch=spec.data.target_batch,
        uses_target=spec.setting.reads_target,
        store=store,
        is_labelled=labels != "unlabelled",
        labelled_images=spec.method.labelled_images,
        pseudo_folder=spec.output_dir if makes_pseudo_labels(spec) else None,
        transforms=make_transforms(spec),
        accumulate=spec.trainer.accumulate,
        num_workers=spec.data.num_workers,
        eval_batch=spec.evaluation.batch,
        source_classes=classes,
        cache=None if spec.data.cache is None else ImageCache(spec.data.cache),
    )
    if classes is not None and scenes.source is not None:
        datamodule.faults = never_drawn(scenes.source, classes)
    return datamodule


def makes_pseudo_labels(spec: RunSpec) -> bool:
    """Return whether the renewals of a run make pseudo-labels."""
    node = spec.method.node
    return (
        bool(spec.plan.renewal_steps)
        and node is not None
        and hasattr(locate(str(node["_target_"]), "method._target_"), "pseudo_label")
    )


def index_folder(spec: RunSpec) -> Path:
    """Return the folder that keeps the class index of the source."""
    return Path(spec.data.cache or spec.data_root / ".ripu")
