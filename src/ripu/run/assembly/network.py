"""The network of a run, with the weights that it starts from, its losses and its optimiser."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from ripu.acquisition.nested import surveying, with_parts
from ripu.config.nodes import instantiate
from ripu.config.spec import RunSpec
from ripu.config.validate import locate
from ripu.io.console import argument, command_line, override
from ripu.io.errors import ConfigError
from ripu.loading.order import seed_of
from ripu.models.checkpoints import CheckpointError, is_weights_file, load_weights, model_of
from ripu.models.interface import keeping_statistics
from ripu.module import RipuModule
from ripu.objectives import Objective, RipuObjective
from ripu.run.assembly.data import translated_folders
from ripu.run.warm_start import check_files
from ripu.training.optimizers import Optimization

_INITIAL_WEIGHTS = 7  # key, beside the seed, of the stream of random numbers that initial weights are drawn from


def make_network(spec: RunSpec, *, is_fresh: bool = True, previous: Path | None = None) -> Any:
    """Make the network of a run (:class:`ripu.models.interface.SegmentationNetwork`) with its initial weights.

    Random weights depend on ``seed`` only. ``model.checkpoint`` or the network of ``start.run`` is loaded strictly, and
    then ``model.weights`` is not fetched. Without ``is_fresh``, neither is read: other weights replace these.
    ``previous`` is the checkpoint of ``method.previous``, for the network that a method learns from.

    Raises:
        ConfigError: The checkpoint cannot be read, or does not fit; lists the differences.
        ValueError: The network's own refusal.
    """
    node = {key: value for key, value in spec.model.items() if key != "checkpoint"} | _input_bands(spec)
    checkpoint: Any = previous
    key = "model.checkpoint" if spec.model_checkpoint is not None else "start.run"
    if previous is not None:
        key = "method.previous"
    elif is_fresh:
        checkpoint = spec.model_checkpoint if spec.model_checkpoint is not None else spec.start.weights
    if (checkpoint is not None or not is_fresh) and takes(node["_target_"], "pretrained"):
        node["pretrained"] = False
    if checkpoint is not None:
        _feed_alike(node, checkpoint, key)
    with torch.random.fork_rng(devices=[]):  # other jobs of a sweep in this process have no part in it
        torch.manual_seed(seed_of(int(spec.seed), _INITIAL_WEIGHTS))
        network = instantiate(node)
    if checkpoint is not None:
        try:
            layout = load_weights(network, checkpoint)
        except CheckpointError as error:
            raise ConfigError(f"{key}: {error}") from error
        if layout == "torchvision":
            raise ConfigError(
                f"{key}={checkpoint} is a torchvision ResNet file, which contains no head; start the "
                f"backbone from it with {argument('model.weights', checkpoint)}"
            )
    return network


def _input_bands(spec: RunSpec) -> dict[Any, Any]:
    """Return the network's argument that says how many bands it takes; refuse another number, or a network without."""
    target, num_bands = spec.model["_target_"], spec.data.image_reader.num_bands
    given = spec.model.get("in_channels", num_bands)
    if given != num_bands:
        raise ConfigError(
            f"model.in_channels={given}, but images are read with {num_bands} bands; leave it out, and name the bands "
            f"with data.bands={list(range(1, given + 1)) if isinstance(given, int) else '[1,2,3,4]'}"
        )
    if num_bands == 3:
        return {}
    if not takes(target, "in_channels"):
        raise ConfigError(
            f"data.bands={list(spec.data.bands or ())} gives images of {num_bands} bands, but {target} has no argument "
            "in_channels; choose another network"
        )
    return {"in_channels": num_bands}


def _feed_alike(node: dict[Any, Any], checkpoint: Any, key: str) -> None:
    """Normalise inputs as for the network of a checkpoint, whose weights do not say how; refuse another epsilon."""
    try:
        trained = model_of(checkpoint)
    except CheckpointError as error:
        raise ConfigError(f"{key}: {error}") from error
    if trained.get("_target_") != node["_target_"]:
        return
    if "weights" in trained and takes(node["_target_"], "pretrained"):
        node["weights"] = trained["weights"]  # not fetched; their name decides how inputs are normalised
    for name in ("mean", "std"):
        if node.get(name) is None and trained.get(name) is not None:
            node[name] = trained[name]
    if trained.get("norm_eps", node.get("norm_eps")) != node.get("norm_eps"):
        raise ConfigError(
            f"{key}={checkpoint} was trained with model.norm_eps={trained['norm_eps']}, not {node['norm_eps']}; give "
            f"model.norm_eps={trained['norm_eps']}"
        )


def takes(target: str, name: str) -> bool:
    """Return whether a class has an argument of this name; False for a class that does not exist."""
    try:
        return name in inspect.signature(locate(target, "model._target_")).parameters
    except (ValueError, TypeError):
        return False


def check_start(spec: RunSpec) -> None:
    """Refuse an optimiser, objective, weights or labels to start from that do not fit, before looking for data."""
    _check_optimizer(spec)
    _check_objective(spec)
    check_scores(spec)
    check_files(spec.start)
    _previous_network(spec, make_objective(spec))
    translated_folders(spec)
    if spec.model_checkpoint is not None or spec.start.run is not None:
        make_network(spec)
    elif takes(str(spec.model["_target_"]), "pretrained"):
        weights = spec.model.get("weights")
        # Names of architecture and encoder, and weights that nothing has to be fetched for
        make_network(spec, is_fresh=weights is None or is_weights_file(weights))


def _check_optimizer(spec: RunSpec) -> None:
    """Refuse an argument that the optimiser does not have."""
    node = spec.optimizer_node
    target = str(node["_target_"])
    parameters = inspect.signature(locate(target, "optimizer._target_")).parameters
    if spec.optimizer.clip_norm is not None and spec.trainer.precision == "16-mixed" and node.get("fused"):
        raise ConfigError(
            "optimizer.clip_norm cannot limit the gradient of optimizer.fused=true with trainer.precision=16-mixed, "
            "which is never unscaled; leave one of them out"
        )
    for name, value in node.items():
        if name in ("lr", "params"):
            raise ConfigError(f"optimizer.{name}={value} has no effect; give optimizer.learning_rate")
        if name != "_target_" and value is not None and name not in parameters:
            raise ConfigError(
                f"optimizer.{name}={value}: {target} has no argument {name}; leave it out with optimizer.{name}=null"
            )
    if "weight_decay" not in parameters and spec.optimizer.weight_decay:
        raise ConfigError(
            f"optimizer.weight_decay={spec.optimizer.weight_decay}: {target} has no weight decay; give "
            "optimizer.weight_decay=0"
        )


def _check_objective(spec: RunSpec) -> None:
    """Refuse an objective that lacks its teacher, steps or images to mix, or cannot read a compiled network."""
    objective = make_objective(spec)
    target = str((spec.method.node or spec.objective)["_target_"]).rpartition(".")[2]
    if objective.needs_teacher and spec.average_decay is None and spec.setting.target_labels not in ("all", "none"):
        raise ConfigError(
            f"ema.decay=null, but {target} learns from the moving average of the weights; give ema.decay=0.999"
        )
    if getattr(objective, "needs_renewal", False) and not spec.plan.renewal_steps:
        raise ConfigError(
            f"renewal_steps=[]: method={spec.method.name} learns nothing from target images before its first renewal; "
            "leave it out (and method.renewal_fractions), or use setting=source_only method=ripu"
        )
    if hasattr(objective, "left_out") and (left_out := objective.left_out(spec.plan)) is not None:
        raise ConfigError(left_out)
    if spec.trainer.compile and getattr(objective, "needs_features", False):
        raise ConfigError(
            f"trainer.compile=true has no effect on the terms of method={spec.method.name}, which read features of a "
            "network that runs as it is written; leave it out"
        )
    if (
        getattr(objective, "mix", False)
        and spec.setting.is_active
        and not spec.setting.uses_source
        and spec.data.target_batch == 1
    ):
        raise ConfigError(
            f"objective.mix=true mixes target images with one another in setting={spec.setting.name}, and "
            "data.target_batch=1 has no other; give 2 or more, or objective.mix=false"
        )


def check_scores(spec: RunSpec) -> None:
    """Refuse a score of whole images for places, one of a source that is not there, or of a part that nobody keeps."""
    if not spec.has_rounds:
        return
    kept = getattr(make_objective(spec), "kept_parts", ())
    for key, node in (("acquisition", spec.acquisition), ("first_round", spec.first_round)):
        score = None if node is None else instantiate(node)
        found = [] if score is None or spec.setting.uses_source else [*surveying(score, "survey_source")]
        if found:
            raise ConfigError(
                f"{key} compares the target with the source ({type(found[0]).__name__}), and setting="
                f"{spec.setting.name} has no source; use setting=active, or another score ({key}=...)"
            )
        for part in () if score is None else with_parts(score):
            if getattr(part, "is_of_images", False) and spec.query is not None and not spec.query.whole_image:
                raise ConfigError(
                    f"{key} gives every place of an image the same score ({type(part).__name__}), and mode={spec.mode} "
                    f"asks about places; use mode=images, or another score ({key}=...)"
                )
            if (name := getattr(part, "reads_kept", None)) is not None and name not in kept:
                raise ConfigError(
                    f"{key} reads the {name} that a method trains ({type(part).__name__}), and method="
                    f"{spec.method.name} trains none; use a method that does, such as method={part.trained_by}, "  # type: ignore[attr-defined]
                    f"or another score ({key}=...)"
                )


def make_module(spec: RunSpec, *, is_fresh: bool = True) -> RipuModule:
    """Make the network with its losses and optimiser; see :func:`make_network`."""
    network, objective = make_network(spec, is_fresh=is_fresh), make_objective(spec)
    if is_fresh:
        _check_single_images(spec, network)
    module = RipuModule(
        network,
        spec.taxonomy,
        spec.plan,
        seed=spec.seed,
        objective=objective,
        optimization=make_optimization(spec),
        average_decay=spec.average_decay,
        norm_statistics=spec.protocol.norm_statistics,  # type: ignore[arg-type]
        accumulate=spec.trainer.accumulate,
        flip=spec.evaluation.flip,
        channels_last=spec.trainer.channels_last,
        compile_network=spec.trainer.compile,
        config=spec.config,
    )
    trained = _previous_network(spec, objective) if is_fresh else None
    if trained is not None:
        module.kept.begin(trained)  # type: ignore[union-attr,operator]
    return module


_OF_THIS_STAGE = ("method", "paths.output_dir=", "resume=", "dry_run=", "pretrain_steps=", "renewal_steps=")
"""Beginnings of the words of a command line that the previous stage does not share."""


def _previous_network(spec: RunSpec, objective: Objective) -> Any:
    """Return the network that an objective learns from, with its weights; None if it learns from none.

    Raises:
        ConfigError: The network is missing or does not fit; the message says how to make it.
    """
    if not hasattr(objective, "previous"):
        return None
    given: str | None = objective.previous
    path = Path("RUN" if given is None else given)
    file = path if path.suffix == ".ckpt" else path / "checkpoints" / "final.ckpt"
    if given is None or not file.is_file():
        run = file.parent.parent if file.parent.name == "checkpoints" else path.with_suffix("")
        method = objective.previous_method  # type: ignore[attr-defined]
        words = [word for word in spec.words if not word.startswith(_OF_THIS_STAGE)]
        words += [f"method={method}", override("paths.output_dir", run)]
        cause = "names no run" if given is None else f"has no network: {file} does not exist"
        finish = "" if given is None or not run.is_dir() else ", or finish that run (resume=true)"
        raise ConfigError(
            f"method.previous={'null' if given is None else given} {cause}; method={spec.method.name} learns from the "
            f"network of the previous stage (of method={method}; for the stage after that, of method="
            f"{spec.method.name}): make it with {command_line('train', words)}"
            f"{', then give method.previous=RUN' if given is None else finish}"
        )
    return make_network(spec, previous=file)


def make_objective(spec: RunSpec) -> Objective:
    """Make the objective of a run with the readings of the protocol that it takes; with all labels, cross-entropy."""
    protocol = spec.protocol
    readings = {
        "supervised_average": protocol.supervised_average,
        "boundary_only": protocol.boundary_only,
        "boundary_detector": protocol.boundary_detector,
        "consistency_border": protocol.consistency_border,
        "loss_epsilon": protocol.loss_epsilon,
    }
    if spec.setting.target_labels == "all":
        balance = spec.objective.get("class_balance", 0.0)
        return RipuObjective(0.0, 0.0, class_balance=balance, **readings)  # type: ignore[arg-type]
    group, node = ("objective", spec.objective) if spec.method.node is None else ("method", spec.method.node)
    known = inspect.signature(locate(str(node["_target_"]), f"{group}._target_")).parameters
    more = {name: value for name, value in readings.items() if name in known and name not in node}
    objective: Objective = instantiate(node, **more)
    return objective


def make_optimization(spec: RunSpec) -> Optimization:
    """Make the optimiser of a run, with its learning rates."""
    optimizer, max_steps = spec.optimizer, spec.plan.max_steps
    node = {key: value for key, value in spec.optimizer_node.items() if value is not None}
    return Optimization(
        instantiate({**node, "_partial_": True, "_convert_": "all"}),  # checkpoints keep plain lists
        learning_rate=optimizer.learning_rate,
        head_lr_factor=optimizer.head_lr_factor,
        layer_decay=optimizer.layer_decay,
        weight_decay=optimizer.weight_decay,
        norm_decay=optimizer.norm_decay,
        clip_norm=optimizer.clip_norm,
        schedule=optimizer.schedule,  # type: ignore[arg-type]
        warmup_steps=round(optimizer.warmup_fraction * max_steps),
        poly_power=optimizer.poly_power,
        poly_horizon=max(1, round(optimizer.poly_horizon_factor * max_steps)),
    )


def _check_single_images(spec: RunSpec, network: Any) -> None:
    """Refuse batches of one image for a network that normalises a pooled image by the batch."""
    keys = ["source_batch"] if spec.setting.uses_source else []
    keys += ["target_batch"] if spec.setting.reads_target else []
    single = [key for key in keys if getattr(spec.data, key) == 1]
    if not single or not any(isinstance(part, torch.nn.BatchNorm2d) and part.training for part in network.modules()):
        return
    try:
        with torch.no_grad(), torch.random.fork_rng(), keeping_statistics(network):
            network(torch.zeros(1, len(network.mean), 64, 64))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"data.{single[0]}=1: this network has a batch norm after global pooling, which needs two "
            f"images to normalise; give data.{single[0]}=2, or a network with frozen norms (model=deeplabv3plus_r101, "
            "or for segmentation-models-pytorch model.freeze_batchnorm=all)"
        ) from error
