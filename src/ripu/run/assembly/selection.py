"""What a run asks for and where the answers are kept: query, region shape, label store, selection engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ripu.config.spec import has_rounds, instantiate, make_plan
from ripu.datasets.scenes import Scenes
from ripu.io.errors import ConfigError
from ripu.run import initial_labels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ripu.labelstore import LabelStore, TargetImage
    from ripu.selection.engine import SelectionEngine


_log = logging.getLogger(__name__)


def make_query(cfg: DictConfig) -> Any:
    """The labelling mode of a run with rounds, a :class:`ripu.selection.query.Query`.

    Raises:
        ConfigError: Radii or a budget that do not fit the mode.
    """
    from ripu.selection.query import Query

    try:
        return Query(
            pixel=cfg.mode.pixel,
            radius=int(cfg.mode.radius),
            suppress_radius=int(cfg.mode.suppress_radius),
            budget=float(cfg.budget),
            num_rounds=len(make_plan(cfg).selection_steps),
            grid=cfg.protocol.get("pixel_grid", "label") if cfg.mode.pixel else "label",
            **_shared_budget(cfg),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _shared_budget(cfg: DictConfig) -> dict[str, Any]:
    per, cap = cfg.mode.get("budget_per", "image"), cfg.mode.get("image_cap")
    if cap is None:
        return {"budget_per": per}
    if per == "image":
        raise ConfigError(f"mode.image_cap={cap} has no effect with mode.budget_per=image; leave it out")
    return {"budget_per": per, "image_cap": float(cap)}


def make_region(cfg: DictConfig) -> Any:
    """The shape of regions, a :class:`ripu.regions.RegionShape`; None where the run is older than the choice.

    Raises:
        ConfigError: Whole regions where single pixels are asked for.
        ValueError: A shape of impossible size, or one whose library is missing.
    """
    node = cfg.get("region")
    if node is None:
        return None
    shape = instantiate(node)
    if shape.is_fixed and cfg.mode.pixel:
        raise ConfigError(
            f"region._target_={node._target_} cuts images into regions, and mode={cfg.mode.name} asks for single pixels; "
            "use mode=ra, or region=square"
        )
    if not shape.is_fixed and node.get("radius", cfg.mode.radius) != cfg.mode.radius:
        raise ConfigError(
            f"region.radius={node.radius} differs from mode.radius={cfg.mode.radius}; give mode.radius alone, which scores "
            "and squares share"
        )
    return shape


def make_engine(cfg: DictConfig, scenes: Scenes, images: Sequence[TargetImage]) -> SelectionEngine | None:
    """The selection engine of a run; None where it has no rounds.

    Args:
        cfg: The configuration.
        scenes: The data.
        images: The target images, in the order of the data; see :func:`target_images`.

    Raises:
        ConfigError: A budget that does not fit into the images, or regions that do not.
        ValueError: What the score, the region shape or the static mask refuses.
    """
    from ripu.selection.engine import SelectionEngine
    from ripu.selection.oracles import GroundTruthOracle

    if not has_rounds(cfg):
        return None
    query, region = make_query(cfg), make_region(cfg)
    sizes = {(image.height, image.width) for image in images}
    if region is not None and region.is_fixed:
        _check_fits(region, query, sizes)
    else:
        for size in sizes:
            check_room(query, size, tuple(cfg.data.target_size))
    return SelectionEngine(
        acquisition=instantiate(cfg.acquisition),
        query=query,
        oracle=GroundTruthOracle(scenes.target),
        image_ids=tuple(image.image_id for image in images),
        label_sizes=tuple((image.height, image.width) for image in images),
        train_size=tuple(cfg.data.target_size),
        seed=cfg.seed,
        excluded=_static_mask(cfg.dataset.static_mask, scenes) if cfg.dataset.static_mask else None,
        region=region,
    )


def check_room(query: Any, size: tuple[int, int], train_size: tuple[int, int]) -> None:
    """Refuse a budget of more picks than have room side by side in a label of (height, width)."""
    wanted = query.picks_per_round(size, train_size) * query.num_rounds
    side = query.suppress_radius + 1
    room = -(-size[0] // side) * -(-size[1] // side)
    if wanted > room:
        what = "pixels" if query.pixel else "regions"
        raise ConfigError(
            f"budget={query.budget:g} is {wanted} {what} of a {size[0]} x {size[1]} image over {query.num_rounds} rounds, and "
            f"only {room} fit into it at mode.suppress_radius={query.suppress_radius}; lower the budget or the radius"
        )


def _check_fits(region: Any, query: Any, sizes: set[tuple[int, int]]) -> None:
    for height, width in sizes:
        whole = query.pixels_until((height, width), query.num_rounds - 1)
        if region.region_px() > whole:
            raise ConfigError(
                f"budget={query.budget} is {whole} pixels of a {height} x {width} label, and a region "
                f"(region._target_={type(region).__name__}) has {region.region_px()}; make regions smaller or the budget larger"
            )
        first = query.pixels_until((height, width), 0)
        if region.region_px() > first and query.budget_per == "image":
            _log.warning(
                "the first round may ask for %d pixels of a %d x %d label, and a region has %d: labels come late, in few "
                "pieces; smaller ones: %s",
                first,
                height,
                width,
                region.region_px(),
                "region.height and region.width" if hasattr(region, "height") else "region.pixels",
            )


def _static_mask(path: str, scenes: Scenes) -> Any:
    """A reader of the one mask (non-zero: never ask there) that holds for every target image."""
    import numpy as np

    from ripu.datasets.image_files import open_image, resize_label

    with open_image(Path(path)) as file:
        mask = np.asarray(file.convert("L"))

    def excluded(index: int) -> NDArray[np.bool_]:
        nothing: NDArray[np.bool_] = resize_label(mask, scenes.target.label_size(index)) != 0
        return nothing

    return excluded


def target_images(scenes: Scenes, labels: Path) -> list[TargetImage]:
    """The target images with the sizes of their labels; of unreadable ones, where they may be skipped, as the run began.

    Args:
        scenes: The data.
        labels: The folder of the label store of the run; it may be missing.
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
                except LabelStoreError:  # there is none yet, or whoever opens it for writing says what is wrong
                    known = {}
            size = known.get(scene.image_id) or scenes.target.label_size(index)
        images.append(TargetImage(scene.image_id, *size))
    return images


def make_store(cfg: DictConfig, scenes: Scenes, run: Path, images: Sequence[TargetImage], *, write: bool) -> LabelStore:
    """The label store of a run; made, or opened where the run goes on.

    Args:
        cfg: The configuration.
        scenes: The data.
        run: The folder of the run.
        images: The target images; see :func:`target_images`.
        write: Whether this is the process that writes. The others wait for what it makes: a launcher as torchrun or srun
            starts all of them at once.
    """
    from ripu.labelstore import LabelStore

    if not write:
        return _made_store(run / "labels", initial_labels.is_given(cfg), 60 * float(cfg.trainer.timeout_minutes))
    sizes = {(image.height, image.width) for image in images}
    return LabelStore.create(
        run / "labels",
        images,
        scenes.taxonomy.class_names,
        {"dataset": cfg.dataset.name, "mode": cfg.mode.name, "seed": cfg.seed},
        planned_picks=_planned_picks(cfg, sizes) if has_rounds(cfg) else 0,
        exist_ok=True,
    )


def _made_store(folder: Path, with_carried: bool, seconds: float) -> LabelStore:
    """The store that another process makes, when it is there with all that the run begins with."""
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
                f"{folder}: the labels to begin with did not come in {seconds / 60:g} minutes (trainer.timeout_minutes); see "
                "what the first process says"
            )
        time.sleep(0.2)


def _planned_picks(cfg: DictConfig, sizes: set[tuple[int, int]]) -> int:
    """The most picks that a run means to spend on an image."""
    query, region = make_query(cfg), make_region(cfg)
    train_size = tuple(cfg.data.target_size)
    most = max(
        query.picks_per_round(size, train_size)
        if region is None or not region.is_fixed
        else -(-query.pixels_until(size, 0) // region.region_px())
        for size in sizes
    )
    return int(most * query.num_rounds)
