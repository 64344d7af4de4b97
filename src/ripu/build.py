"""From a composed configuration to objects; with the entry points and its neighbours the only place that knows Hydra."""

from __future__ import annotations

import inspect
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ripu import resolvers as resolvers
from ripu import start
from ripu.folders import check_output
from ripu.strict import ConfigError as ConfigError
from ripu.strict import check_values, locate
from ripu.strict import config_dir as config_dir
from ripu.troubles import line_of

if TYPE_CHECKING:  # torch and Lightning take long to import: only when something is built
    import numpy as np
    from numpy.typing import NDArray

    from ripu.datamodule import RipuDataModule
    from ripu.datasets.scenes import SceneDataset
    from ripu.datasets.taxonomy import Taxonomy
    from ripu.datasets.unreadable import Fault, TolerantScenes
    from ripu.labelstore import LabelStore
    from ripu.module import RipuModule
    from ripu.plan import Plan
    from ripu.selection.engine import SelectionEngine

_log = logging.getLogger(__name__)

INITIAL_WEIGHTS = 7
"""Key of the stream of random numbers that initial weights are drawn from, beside the seed."""


def make_plan(cfg: DictConfig) -> Plan:
    """The schedule of a run.

    Raises:
        ConfigError: Steps that do not fit into the run.
    """
    from ripu.plan import Plan, scheduled_steps

    max_steps = int(cfg.trainer.max_steps)
    labels = cfg.setting.target_labels
    if labels == "revealed":
        steps = cfg.selection_steps
        if max_steps < 1:
            raise ConfigError(f"trainer.max_steps={max_steps} trains nothing; give 1 or more")
        if steps is None:
            steps = scheduled_steps(list(_timing(cfg, "selection_fractions")), max_steps)
            if len(set(steps)) < len(steps) or (steps and steps[-1] >= max_steps):
                raise ConfigError(
                    f"trainer.max_steps={max_steps} is too short for the {len(steps)} rounds of dataset={cfg.dataset.name}, "
                    f"which would take place at steps {list(steps)}; train longer, or give selection_steps"
                )
        pretrain = cfg.pretrain_steps
        if pretrain is None:
            pretrain = round(_timing(cfg, "pretrain_fraction") * max_steps)
            if cfg.protocol.get("pretraining") == "until_first_round" and steps:
                pretrain = steps[0]
            if start.is_given(cfg):
                pretrain = 0  # there are labels to train on
        if not steps and not start.is_given(cfg):
            raise ConfigError(
                "selection_steps=[] asks for nothing, and there are no labels to train on; give steps, begin with labels that "
                "are there (start.labels=FOLDER, start.run=RUN), or use setting=source_only"
            )
        if not steps and pretrain >= max_steps:
            raise ConfigError(
                f"pretrain_steps={pretrain} leaves none of trainer.max_steps={max_steps} to train on the labels that start "
                "brings; lower it"
            )
        if pretrain and not uses_source(cfg):
            raise ConfigError(f"pretrain_steps={pretrain} has no effect in setting={cfg.setting.name}; leave it out")
    else:
        for key in ("selection_steps", "pretrain_steps"):
            if cfg[key] is not None:
                raise ConfigError(f"{key}={cfg[key]} has no effect in setting={cfg.setting.name}; leave it out")
        steps, pretrain = (), max_steps if labels == "none" else 0
    try:
        return Plan(max_steps, int(pretrain), tuple(int(step) for step in steps))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _timing(cfg: DictConfig, key: str) -> Any:
    """When things happen, as the setting says it; configurations from before it did so leave it to the recipe."""
    return cfg.setting.get(key, cfg.dataset.recipe[key])


def uses_source(cfg: DictConfig) -> bool:
    """Whether a run reads source images at all."""
    return bool(cfg.setting.get("uses_source", True))


def check_config(cfg: DictConfig) -> None:
    """Refuse values that cannot be run, before any long work.

    Raises:
        ConfigError: Naming the key, its value, what is allowed and why.
    """
    check_values(cfg, "train")
    check_output(cfg)
    if cfg.trainer.accelerator == "cpu":
        check_processes(cfg.trainer.devices, "trainer.accelerator=cpu")
    if cfg.dataset.static_mask is not None and not Path(cfg.dataset.static_mask).is_file():
        raise ConfigError(
            f"dataset.static_mask={cfg.dataset.static_mask} does not exist; give a grey PNG, non-zero where nothing is asked"
        )
    taxonomy = make_taxonomy(cfg)
    if cfg.dataset.num_classes != taxonomy.num_classes:
        raise ConfigError(
            f"dataset.num_classes={cfg.dataset.num_classes}, but taxonomy {taxonomy.name} has {taxonomy.num_classes} "
            "classes"
        )
    make_plan(cfg)
    if cfg.get("dry_run") and cfg.resume:
        raise ConfigError("dry_run=true looks at a whole run, and resume=true goes on with one; leave one of them out")
    start.check_combination(cfg)
    if not uses_source(cfg) and not cfg.model.get("checkpoint") and start.weights(cfg) is None:
        raise ConfigError(
            f"setting={cfg.setting.name} begins with a trained network; give model.checkpoint=RUN/checkpoints/final.ckpt "
            "of a run with setting=source_only, or start.run=RUN"
        )
    if has_rounds(cfg):
        query, region = make_query(cfg), make_region(cfg)
        if region is None or not region.is_fixed:
            _check_room(query, tuple(cfg.data.target_size), tuple(cfg.data.target_size))
    elif cfg.budget != cfg.mode.budget:
        is_active = cfg.setting.target_labels == "revealed"
        where = "without rounds (selection_steps=[])" if is_active else f"in setting={cfg.setting.name}"
        raise ConfigError(f"budget={cfg.budget} has no effect {where}; leave it out")


def check_processes(devices: Any, where: str) -> None:
    """Refuse what is no number of processes, which is what ``trainer.devices`` is on a CPU.

    Raises:
        ConfigError: Naming the value and ``where`` it is not allowed.
    """
    if devices != "auto" and not (str(devices).isdigit() and int(devices) > 0):
        raise ConfigError(
            f"trainer.devices={devices} is not allowed with {where}, where it is the number of processes; give 1 or more"
        )


def make_taxonomy(cfg: DictConfig) -> Taxonomy:
    """The classes of a run: a table of the package by its name, or one that the dataset's yaml describes.

    Raises:
        ConfigError: There is no table of this name.
        ValueError: The yaml's table is not in order.
    """
    from ripu.datasets.taxonomy import TAXONOMIES

    if not isinstance(cfg.dataset.taxonomy, str):
        if OmegaConf.is_missing(cfg.dataset, "classes"):
            raise ConfigError(
                f"dataset={cfg.dataset.name} needs dataset.classes, the names of the classes; docs/your-own-data.md tells "
                "how to describe data of one's own"
            )
        made: Taxonomy = instantiate(cfg.dataset.taxonomy)
        return made
    if cfg.dataset.taxonomy not in TAXONOMIES:
        raise ConfigError(f"dataset.taxonomy={cfg.dataset.taxonomy} is unknown; there are {sorted(TAXONOMIES)}")
    return TAXONOMIES[cfg.dataset.taxonomy]


def has_rounds(cfg: DictConfig) -> bool:
    """Whether a run asks for anything; one with ``selection_steps=[]`` trains on the labels that it begins with."""
    return cfg.setting.target_labels == "revealed" and bool(make_plan(cfg).selection_steps)


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


@dataclass(frozen=True)
class Scenes:
    """The scenes of a run: labelled source (None where none is read), target (with the labels that the oracle knows)
    and validation."""

    source: SceneDataset | None
    target: SceneDataset
    val: SceneDataset
    taxonomy: Taxonomy


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
    from ripu.doctor import quick_check

    parts = load_parts(cfg, parts=names)
    if cfg.data.get("unreadable") == "skip":
        from ripu.datasets.unreadable import tolerant

        parts = {name: tolerant(part, name) for name, part in parts.items()}
    quick_check(parts)
    if not parts["val"].is_labelled:
        raise ConfigError(f"{parts['val'].name} has scenes without labels; nothing can be measured on them")
    for name in ("source", "val"):
        if name in parts and parts[name].taxonomy.class_names != taxonomy.class_names:
            raise ConfigError(f"{parts[name].name} must have the classes of dataset.taxonomy, {taxonomy.name}")
    return parts


def find_data(cfg: DictConfig) -> None:
    """Refuse data that are not there, before anything that takes time to import; generated scenes are made later.

    Raises:
        DatasetNotFoundError: A data set is not there; says what to do, and how to do without it.
    """
    from ripu.datasets.scenes import DatasetNotFoundError

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


def instantiate(node: Any, **more: Any) -> Any:
    """Make the object that a configuration node describes by its ``_target_``.

    Raises:
        ValueError: What the object's own code refuses, as it says it.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as make

    try:
        return make(node, **more)
    except InstantiationException as error:
        if isinstance(error.__cause__, (ValueError, RuntimeError)):
            raise error.__cause__ from None
        raise ConfigError(str(error)) from error


def _label_sizes(scenes: Scenes, labels: Path) -> list[tuple[int, int]]:
    """(height, width) of every target label; of unreadable ones, where they may be skipped, as the run began with them."""
    from ripu.datasets.scenes import SceneError
    from ripu.datasets.unreadable import strict
    from ripu.labelstore import LabelStore, LabelStoreError

    sizes = []
    known: dict[str, tuple[int, int]] | None = None
    for index, scene in enumerate(scenes.target.scenes):
        try:
            sizes.append(strict(scenes.target).label_size(index))
        except SceneError:
            if strict(scenes.target) is scenes.target:
                raise
            if known is None:
                try:
                    known = {one.image_id: (one.height, one.width) for one in LabelStore.open(labels).images}
                except LabelStoreError:  # there is none yet, or whoever opens it for writing says what is wrong
                    known = {}
            sizes.append(known.get(scene.image_id) or scenes.target.label_size(index))
    return sizes


def make_store(cfg: DictConfig, scenes: Scenes, run: Path, *, write: bool) -> LabelStore:
    """The label store of a run; made, or opened where the run goes on.

    Args:
        cfg: The configuration.
        scenes: The data.
        run: The folder of the run.
        write: Whether this is the process that writes. The others wait for what it makes: a launcher as torchrun or srun
            starts all of them at once.
    """
    from ripu.labelstore import LabelStore, TargetImage

    if not write:
        return _made_store(run / "labels", start.is_given(cfg), 60 * float(cfg.trainer.timeout_minutes))
    sizes = _label_sizes(scenes, run / "labels")
    images = [
        TargetImage(scene.image_id, height, width)
        for scene, (height, width) in zip(scenes.target.scenes, sizes, strict=True)
    ]
    return LabelStore.create(
        run / "labels",
        images,
        scenes.taxonomy.class_names,
        {"dataset": cfg.dataset.name, "mode": cfg.mode.name, "seed": cfg.seed},
        planned_picks=_planned_picks(cfg, set(sizes)) if has_rounds(cfg) else 0,
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


def make_engine(cfg: DictConfig, scenes: Scenes, store: LabelStore) -> SelectionEngine | None:
    """The selection engine of a run; None where it has no rounds."""
    from ripu.selection.engine import SelectionEngine
    from ripu.selection.oracle import GroundTruthOracle

    if not has_rounds(cfg):
        return None
    query, region = make_query(cfg), make_region(cfg)
    sizes = {(image.height, image.width) for image in store.images}
    if region is not None and region.is_fixed:
        _check_fits(region, query, sizes)
    else:
        for size in sizes:
            _check_room(query, size, tuple(cfg.data.target_size))
    return SelectionEngine(
        acquisition=instantiate(cfg.acquisition),
        query=query,
        oracle=GroundTruthOracle(scenes.target),
        image_ids=tuple(image.image_id for image in store.images),
        label_sizes=tuple((image.height, image.width) for image in store.images),
        train_size=tuple(cfg.data.target_size),
        seed=cfg.seed,
        excluded=_static_mask(cfg.dataset.static_mask, scenes) if cfg.dataset.static_mask else None,
        region=region,
    )


def _check_room(query: Any, size: tuple[int, int], train_size: tuple[int, int]) -> None:
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


def _static_mask(path: str, scenes: Scenes) -> Any:
    """A reader of the one mask (non-zero: never ask there) that holds for every target image."""
    import numpy as np

    from ripu.datamodule import resize_label
    from ripu.datasets.scenes import read_picture

    mask = read_picture(Path(path), lambda file: np.asarray(file.convert("L")))

    def excluded(index: int) -> NDArray[np.bool_]:
        nothing: NDArray[np.bool_] = resize_label(mask, scenes.target.label_size(index)) != 0
        return nothing

    return excluded


def make_datamodule(cfg: DictConfig, scenes: Scenes, store: LabelStore | None) -> RipuDataModule:
    """The data side of a run."""
    from ripu.classbalance import class_index
    from ripu.datamodule import RipuDataModule
    from ripu.datasets.cache import ImageCache
    from ripu.datasets.unreadable import TolerantScenes

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
    if classes is not None and isinstance(scenes.source, TolerantScenes):
        datamodule.faults = _never_drawn(scenes.source, classes)
    return datamodule


def _never_drawn(source: TolerantScenes, classes: NDArray[np.bool_]) -> list[Fault]:
    """Unreadable labels among those without any class, which class-balanced sampling never draws."""
    from ripu.datasets.scenes import SceneError

    faults = []
    for index in (~classes.any(axis=1)).nonzero()[0].tolist():
        try:
            source.strict.read_label(index)
        except SceneError as error:
            faults.append(source.fault(index, source.scenes[index].label, error))
    return faults


def index_folder(cfg: DictConfig) -> Path:
    """Where the class index of the source is kept."""
    return Path(cfg.data.cache or Path(cfg.paths.data_root) / ".ripu")


def make_network(cfg: DictConfig, *, is_fresh: bool = True) -> Any:
    """The network of a run, a :class:`ripu.module.SegmentationNetwork`, with the weights that it starts from.

    Random weights depend on ``seed`` alone.

    Args:
        cfg: The configuration; ``model.checkpoint`` or the network of ``start.run`` is loaded strictly, and then
            ``model.weights`` is not fetched.
        is_fresh: False where weights are loaded over these: then neither is read.

    Raises:
        ConfigError: ``model.checkpoint`` cannot be read or does not fit; lists what does not.
        ValueError: As the network raises it.
    """
    import torch

    from ripu.models.checkpoints import CheckpointError, load_weights
    from ripu.sampling import seed_of

    node = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(node, dict)
    checkpoint, key = node.pop("checkpoint", None), "model.checkpoint"
    if checkpoint is None and start.weights(cfg) is not None:
        checkpoint, key = start.weights(cfg), "start.run"
    if (checkpoint is not None or not is_fresh) and _takes(node["_target_"], "pretrained"):
        node["pretrained"] = False
    with torch.random.fork_rng(devices=[]):  # what came before in this process, other jobs of a sweep, has no part in it
        torch.manual_seed(seed_of(int(cfg.get("seed", 0)), INITIAL_WEIGHTS))
        network = instantiate(node)
    if is_fresh and checkpoint is not None:
        try:
            layout = load_weights(network, checkpoint)
        except CheckpointError as error:
            raise ConfigError(f"{key}: {error}") from error
        if layout == "torchvision":
            raise ConfigError(
                f"model.checkpoint={checkpoint} is a torchvision ResNet file, which holds no head; start the backbone from "
                f"it with model.weights={checkpoint}"
            )
    return network


def _takes(target: str, argument: str) -> bool:
    """Whether a class has an argument of this name; False for a class that is not there, which is told elsewhere."""
    from hydra.utils import get_object

    try:
        return argument in inspect.signature(get_object(target)).parameters
    except Exception:
        return False


def check_start(cfg: DictConfig) -> None:
    """Refuse weights and labels to start from that are not there or do not fit, before data are looked for or generated.

    Raises:
        ConfigError: See :func:`make_network`.
    """
    start.check_files(cfg)
    if cfg.model.get("checkpoint") is not None or start.weights(cfg) is not None:
        make_network(cfg)
    elif _takes(str(cfg.model._target_), "pretrained"):
        make_network(cfg, is_fresh=False)  # names of architecture and encoder; nothing is fetched


def make_module(cfg: DictConfig, taxonomy: Taxonomy, *, is_fresh: bool = True) -> RipuModule:
    """The network with its losses and optimiser; see :func:`make_network`."""
    from ripu.module import RipuModule

    plan = make_plan(cfg)
    is_supervised = cfg.setting.target_labels == "all"
    network = make_network(cfg, is_fresh=is_fresh)
    if is_fresh:
        _check_single_images(cfg, network)
    return RipuModule(
        network,
        taxonomy,
        plan,
        seed=cfg.seed,
        learning_rate=cfg.optimizer.learning_rate,
        head_lr_factor=cfg.optimizer.head_lr_factor,
        momentum=cfg.optimizer.momentum,
        weight_decay=cfg.optimizer.weight_decay,
        poly_power=cfg.optimizer.poly_power,
        poly_horizon=max(1, round(cfg.optimizer.poly_horizon_factor * plan.max_steps)),
        consistency_weight=0.0 if is_supervised else cfg.objective.consistency_weight,
        negative_weight=0.0 if is_supervised else cfg.objective.negative_weight,
        negative_threshold=cfg.objective.negative_threshold,
        supervised_average=cfg.protocol.supervised_average,
        boundary_only=cfg.protocol.boundary_only,
        boundary_detector=cfg.protocol.boundary_detector,
        consistency_border=cfg.protocol.consistency_border,
        loss_epsilon=cfg.protocol.get("loss_epsilon", 0.0),
        accumulate=cfg.trainer.accumulate,
        flip=cfg.evaluation.flip,
        channels_last=cfg.trainer.channels_last,
        compile_network=cfg.trainer.compile,
        config=plain(cfg),
    )


def _check_single_images(cfg: DictConfig, network: Any) -> None:
    """Refuse batches of one image for a network that normalises a pooled image by the batch.

    Raises:
        ConfigError: Naming the key and what there is to do.
    """
    import torch

    from ripu.module import keeping_statistics

    keys = ["source_batch"] if uses_source(cfg) else []
    keys += ["target_batch"] if cfg.setting.target_labels != "none" else []
    single = [key for key in keys if cfg.data[key] == 1]
    if not single or not any(isinstance(one, torch.nn.BatchNorm2d) and one.training for one in network.modules()):
        return
    try:
        with torch.no_grad(), torch.random.fork_rng(), keeping_statistics(network):
            network(torch.zeros(1, 3, 64, 64))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"data.{single[0]}=1: this network has a batch norm behind the pooling of a whole image, which needs two images "
            f"to normalise; give data.{single[0]}=2, or a network with frozen norms (model=deeplabv3plus_r101, or for "
            "segmentation-models-pytorch model.freeze_batchnorm=all)"
        ) from error


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as a plain container."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def explain(error: Exception) -> None:
    """Print an error that the user can do something about; raise any other again.

    Args:
        error: What ended a command; see :func:`ripu.troubles.line_of`.
    """
    line = line_of(error)
    if line is None:
        raise error
    print(f"\nerror: {line}", file=sys.stderr)


def quiet_libraries() -> None:
    """Silence what the libraries below say about themselves; what this package says stays."""
    noisy = ("pytorch_lightning", "lightning_utilities", "lightning_fabric", "lightning")

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in noisy

    for handler in logging.getLogger().handlers:  # not their loggers, whose levels they set when they are imported
        handler.addFilter(is_wanted)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch.utils.data|torchmetrics")
