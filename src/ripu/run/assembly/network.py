"""The network of a run, with the weights that it starts from, its losses and its optimiser."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from ripu.config.spec import RunSpec, instantiate
from ripu.config.validate import locate
from ripu.io.console import argument
from ripu.io.errors import ConfigError
from ripu.loading.order import seed_of
from ripu.models.checkpoints import CheckpointError, is_weights_file, load_weights, model_of
from ripu.models.interface import keeping_statistics
from ripu.module import RipuModule
from ripu.run.warm_start import check_files

_INITIAL_WEIGHTS = 7  # key, beside the seed, of the stream of random numbers that initial weights are drawn from


def make_network(spec: RunSpec, *, is_fresh: bool = True) -> Any:
    """Make the network of a run (:class:`ripu.models.interface.SegmentationNetwork`) with its initial weights.

    Random weights depend on ``seed`` only. ``model.checkpoint`` or the network of ``start.run`` is loaded strictly, and
    then ``model.weights`` is not fetched. Without ``is_fresh``, neither is read: other weights replace these.

    Raises:
        ConfigError: ``model.checkpoint`` cannot be read, or does not fit; lists the differences.
        ValueError: The network's own refusal.
    """
    node = {key: value for key, value in spec.model.items() if key != "checkpoint"} | _input_bands(spec)
    checkpoint: Any = None
    key = "model.checkpoint" if spec.model_checkpoint is not None else "start.run"
    if is_fresh:
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
                f"model.checkpoint={checkpoint} is a torchvision ResNet file, which contains no head; start the "
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
    """Refuse weights and labels to start from that are missing or do not fit, before looking for data."""
    check_files(spec.start)
    if spec.model_checkpoint is not None or spec.start.run is not None:
        make_network(spec)
    elif takes(str(spec.model["_target_"]), "pretrained"):
        # Names of architecture and encoder, and a file of weights that is there; nothing is fetched
        make_network(spec, is_fresh=is_weights_file(spec.model.get("weights")))


def make_module(spec: RunSpec, *, is_fresh: bool = True) -> RipuModule:
    """Make the network with its losses and optimiser; see :func:`make_network`."""
    optimizer, objective, protocol = spec.optimizer, spec.objective, spec.protocol
    is_supervised = spec.setting.target_labels == "all"
    network = make_network(spec, is_fresh=is_fresh)
    if is_fresh:
        _check_single_images(spec, network)
    return RipuModule(
        network,
        spec.taxonomy,
        spec.plan,
        seed=spec.seed,
        learning_rate=optimizer.learning_rate,
        head_lr_factor=optimizer.head_lr_factor,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        poly_power=optimizer.poly_power,
        poly_horizon=max(1, round(optimizer.poly_horizon_factor * spec.plan.max_steps)),
        consistency_weight=0.0 if is_supervised else objective.consistency_weight,
        negative_weight=0.0 if is_supervised else objective.negative_weight,
        negative_threshold=objective.negative_threshold,
        supervised_average=protocol.supervised_average,
        boundary_only=protocol.boundary_only,
        boundary_detector=protocol.boundary_detector,
        consistency_border=protocol.consistency_border,
        loss_epsilon=protocol.loss_epsilon,
        accumulate=spec.trainer.accumulate,
        flip=spec.evaluation.flip,
        channels_last=spec.trainer.channels_last,
        compile_network=spec.trainer.compile,
        config=spec.config,
    )


def _check_single_images(spec: RunSpec, network: Any) -> None:
    """Refuse batches of one image for a network that normalises a pooled image by the batch."""
    keys = ["source_batch"] if spec.setting.uses_source else []
    keys += ["target_batch"] if spec.setting.target_labels != "none" else []
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
