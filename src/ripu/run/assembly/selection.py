"""The part of a run that asks for labels: selection engine and label store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.config.checks import check_room
from ripu.config.spec import RunSpec, instantiate
from ripu.datasets.scenes import Scenes
from ripu.io.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ripu.labelstore import ImageAnswers, LabelStore, TargetImage
    from ripu.regions import RegionShape
    from ripu.selection.engine import SelectionEngine
    from ripu.selection.oracles import Oracle
    from ripu.selection.query import Query

_log = logging.getLogger(__name__)


def make_engine(spec: RunSpec, scenes: Scenes, images: Sequence[TargetImage]) -> SelectionEngine | None:
    """Make the selection engine of a run; None where it has no rounds.

    Args:
        spec: The run.
        scenes: The data.
        images: The target images, in the order of the data; see :func:`target_images`.

    Raises:
        ConfigError: A budget that does not fit into the images, or regions that do not.
        ValueError: The score, the region shape or the static mask cannot be used.
    """
    from ripu.selection.engine import SelectionEngine
    from ripu.selection.oracles import GroundTruthOracle
    from ripu.selection.scoring import Scorer

    query, region = spec.query, spec.region
    if query is None:
        return None
    sizes = {(image.height, image.width) for image in images}
    if region is not None and region.is_fixed:
        _check_fits(region, query, sizes)
    else:
        for size in sizes:
            check_room(query, size, spec.data.target_size)
    scorer = Scorer(
        acquisition=instantiate(spec.acquisition),
        query=query,
        image_ids=tuple(image.image_id for image in images),
        label_sizes=tuple((image.height, image.width) for image in images),
        train_size=spec.data.target_size,
        seed=spec.seed,
        excluded=_static_mask(spec.dataset.static_mask, scenes) if spec.dataset.static_mask else None,
        region=region,
    )
    return SelectionEngine(scorer, GroundTruthOracle(scenes.target))


def _check_fits(region: RegionShape, query: Query, sizes: set[tuple[int, int]]) -> None:
    for height, width in sizes:
        whole = query.pixels_until((height, width), query.num_rounds - 1)
        if region.region_px() > whole:
            raise ConfigError(
                f"budget={query.budget} is {whole} pixels of a {height} x {width} label, and a region "
                f"(region._target_={type(region).__name__}) has {region.region_px()}; make regions smaller or the "
                "budget larger"
            )
        first = query.pixels_until((height, width), 0)
        if region.region_px() > first and query.budget_per == "image":
            _log.warning(
                "the first round may ask for %d pixels of a %d x %d label, and a region has %d: labels come late, in "
                "few pieces; smaller ones: %s",
                first,
                height,
                width,
                region.region_px(),
                "region.height and region.width" if hasattr(region, "height") else "region.pixels",
            )


def _static_mask(path: str, scenes: Scenes) -> Any:
    """Return a reader of the one mask, non-zero where nothing may be queried, that holds for all images."""
    import numpy as np

    from ripu.datasets.image_files import open_image, resize_label

    with open_image(Path(path)) as file:
        mask = np.asarray(file.convert("L"))

    def excluded(index: int) -> NDArray[np.bool_]:
        nothing: NDArray[np.bool_] = resize_label(mask, scenes.target.label_size(index)) != 0
        return nothing

    return excluded


def target_images(scenes: Scenes, labels: Path) -> list[TargetImage]:
    """Return the target images with the sizes of their labels.

    Where unreadable images may be skipped, their sizes are those that the label store recorded when the run began.

    Args:
        scenes: The data.
        labels: The folder of the run's label store; it may be missing.
    """
    from ripu.datasets.errors import SkippedFileError
    from ripu.labelstore import LabelStore, LabelStoreError, TargetImage

    images = []
    known: dict[str, tuple[int, int]] | None = None
    for index, scene in enumerate(scenes.target.scenes):
        try:
            size = scenes.target.require_label_size(index)
        except SkippedFileError:
            if known is None:
                try:
                    known = {one.image_id: (one.height, one.width) for one in LabelStore.open(labels).images}
                except LabelStoreError:  # there is none yet, or opening it for writing will say what is wrong
                    known = {}
            size = known.get(scene.image_id) or scenes.target.label_size(index)
        images.append(TargetImage(scene.image_id, *size))
    return images


def make_store(spec: RunSpec, scenes: Scenes, run: Path, images: Sequence[TargetImage], *, write: bool) -> LabelStore:
    """Make the label store of a run, or open it where the run is resumed.

    Args:
        spec: The run.
        scenes: The data.
        run: The folder of the run.
        images: The target images; see :func:`target_images`.
        write: True in the process that writes. The others wait for the store: a launcher such as torchrun or srun
            starts all of them at once.
    """
    from ripu.labelstore import LabelStore

    if not write:
        return _made_store(run / "labels", spec.start.has_labels, 60 * spec.trainer.timeout_minutes)
    sizes = {(image.height, image.width) for image in images}
    return LabelStore.create(
        run / "labels",
        images,
        scenes.taxonomy.class_names,
        {"dataset": spec.dataset.name, "mode": spec.mode, "seed": spec.seed},
        planned_picks=0 if spec.query is None else _planned_picks(spec, spec.query, sizes),
        exist_ok=True,
    )


def _made_store(folder: Path, with_carried: bool, seconds: float) -> LabelStore:
    """Wait for the store that another process makes, with all labels that the run begins with."""
    from ripu.labelstore import LabelStore, StoreMissingError

    latest = time.monotonic() + seconds
    while True:
        try:
            store = LabelStore.open(folder)
            if store.carried or not with_carried:
                return store
        except StoreMissingError:
            if time.monotonic() > latest:
                raise
        if time.monotonic() > latest:
            raise ConfigError(
                f"{folder}: the initial labels were not ready within {seconds / 60:g} minutes "
                "(trainer.timeout_minutes); see the first process's messages"
            )
        time.sleep(0.2)


def _planned_picks(spec: RunSpec, query: Query, sizes: set[tuple[int, int]]) -> int:
    """Return the most picks that a run plans to spend on an image."""
    region = spec.region
    most = max(
        query.picks_per_round(size, spec.data.target_size)
        if region is None or not region.is_fixed
        else -(-query.pixels_until(size, 0) // region.region_px())
        for size in sizes
    )
    return int(most * query.num_rounds)


def ask_again(store: LabelStore, oracle: Oracle) -> None:
    """Put unanswered queries to the oracle once more, e.g. where images have been labelled since.

    Args:
        store: The label store of the run, open for writing.
        oracle: Answers; it is not asked where nothing is unanswered.
    """
    import numpy as np

    from ripu.datasets.errors import SkippedFileError
    from ripu.labelstore import ImageAnswers

    def answers() -> Iterator[ImageAnswers]:
        for image in store.images:
            pixels = np.unique(store.unanswered(image.image_id))
            try:
                labels = oracle.answer(image.image_id, *np.divmod(pixels, image.width)) if len(pixels) else None
            except SkippedFileError:  # reported when the image is next asked about
                continue
            if labels is not None:
                yield ImageAnswers(image.image_id, pixels, labels)

    found = store.append_answers(answers())
    if found:
        _log.info("%d pixels whose queries had stayed unanswered are labelled by now", found)
