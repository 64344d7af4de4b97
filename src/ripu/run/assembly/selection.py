"""The part of a run that asks for labels: selection engine and label store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.config.checks import check_room
from ripu.config.nodes import instantiate
from ripu.config.spec import RunSpec
from ripu.datasets.errors import SkippedFileError
from ripu.datasets.image_files import open_image, resize_label
from ripu.datasets.scenes import Scenes
from ripu.io.errors import ConfigError
from ripu.labelstore import ImageAnswers, LabelStore, LabelStoreError, StoreMissingError, TargetImage
from ripu.regions import RegionShape
from ripu.selection.engine import SelectionEngine
from ripu.selection.oracles import Oracle
from ripu.selection.query import Query
from ripu.selection.scoring import Scorer

_log = logging.getLogger(__name__)


def make_engine(spec: RunSpec, scenes: Scenes, images: Sequence[TargetImage]) -> SelectionEngine | None:
    """Make the selection engine of a run for its :func:`target_images`; None if it has no rounds.

    Raises:
        ConfigError: A budget that does not fit into the images, or regions that do not.
        ValueError: The score, the region shape or the static mask cannot be used.
    """
    query, region = spec.query, spec.region
    if query is None:
        return None
    sizes = tuple((image.height, image.width) for image in images)
    for size in set(sizes):
        if region is not None and region.is_fixed:
            _check_fits(region, query, *size)
        elif not query.whole_image:
            check_room(query, size, spec.data.fed_size(size))
    scorer = Scorer(
        acquisition=instantiate(spec.acquisition),
        first_round=None if spec.first_round is None else instantiate(spec.first_round),
        query=query,
        image_ids=tuple(image.image_id for image in images),
        label_sizes=sizes,
        train_size=spec.data.target_size,
        seed=spec.seed,
        excluded=_static_mask(spec.dataset.static_mask, scenes) if spec.dataset.static_mask else None,
        region=region,
        fit=spec.data.fit,
    )
    oracle = instantiate({**spec.oracle, "_partial_": True})(scenes.target)
    begins_trained = bool(spec.model_checkpoint) or spec.start.run is not None
    return SelectionEngine(scorer, oracle, begins_trained=begins_trained)


def _check_fits(region: RegionShape, query: Query, height: int, width: int) -> None:
    region_px = region.region_px()
    whole = query.pixels_until((height, width), query.num_rounds - 1)
    if region_px > whole:
        raise ConfigError(
            f"budget={query.budget} is {whole} pixels of a {height} x {width} label, but a region "
            f"(region._target_={type(region).__name__}) has {region_px}; make regions smaller or the budget larger"
        )
    first = query.pixels_until((height, width), 0)
    if region_px > first and query.budget_per == "image":
        keys = "region.height and region.width" if hasattr(region, "height") else "region.pixels"
        _log.warning(
            f"the first round may query {first} pixels of a {height} x {width} label, but a region has {region_px}: "
            f"labels come late, in few pieces; smaller ones: {keys}"
        )


def _static_mask(path: str, scenes: Scenes) -> Callable[[int], NDArray[np.bool_]]:
    """Return a reader of the mask that all images share; it is non-zero where nothing may be queried."""
    with open_image(Path(path)) as file:
        mask = np.asarray(file.convert("L"))

    def excluded(index: int) -> NDArray[np.bool_]:
        nothing: NDArray[np.bool_] = resize_label(mask, scenes.target.label_size(index)) != 0
        return nothing

    return excluded


def target_images(scenes: Scenes, labels: Path) -> list[TargetImage]:
    """Return the target images with the sizes of their labels.

    If unreadable images may be skipped, their sizes are those that the label store in the folder ``labels``, which may
    be missing, recorded when the run began.
    """
    images = []
    known: dict[str, tuple[int, int]] | None = None
    for index, scene in enumerate(scenes.target.scenes):
        try:
            size = scenes.target.require_label_size(index)
        except SkippedFileError:
            if known is None:
                try:
                    known = {image.image_id: (image.height, image.width) for image in LabelStore.open(labels).images}
                except LabelStoreError:  # it does not exist yet, or opening it for writing will say what is wrong
                    known = {}
            size = known.get(scene.image_id) or scenes.target.label_size(index)
        images.append(TargetImage(scene.image_id, *size))
    return images


def make_store(spec: RunSpec, scenes: Scenes, run: Path, images: Sequence[TargetImage], *, write: bool) -> LabelStore:
    """Make the label store in the folder ``run`` for its :func:`target_images`, or open it if the run is resumed.

    One process writes. The others wait for the store: a launcher such as torchrun or srun starts all of them at once.
    """
    if not write:
        return _made_store(run / "labels", spec.start.has_labels, 60 * spec.trainer.timeout_minutes)
    query, region, planned_picks = spec.query, spec.region, 0
    if query is not None:  # the most picks that the run plans to spend on an image
        for size in {(image.height, image.width) for image in images}:
            if region is not None and region.is_fixed:
                picks = -(-query.pixels_until(size, 0) // region.region_px())
            else:
                picks = query.picks_per_round(size, spec.data.fed_size(size))
            planned_picks = max(planned_picks, picks * (1 if query.whole_image else query.num_rounds))
    return LabelStore.create(
        run / "labels",
        images,
        scenes.taxonomy.class_names,
        {"dataset": spec.dataset.name, "mode": spec.mode, "seed": spec.seed},
        planned_picks=planned_picks,
        exist_ok=True,
    )


def _made_store(folder: Path, with_carried: bool, seconds: float) -> LabelStore:
    """Wait for the store that another process makes, with all labels that the run begins with."""
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


def ask_again(store: LabelStore, oracle: Oracle) -> None:
    """Ask the oracle about unanswered queries once more, e.g. because images have been labelled since."""

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
