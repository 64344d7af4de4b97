"""The network of a run, with the weights that it starts from, its losses and its optimiser."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ripu.config.spec import instantiate, make_plan, plain, uses_source
from ripu.io.errors import ConfigError
from ripu.run import initial_labels

if TYPE_CHECKING:
    from ripu.datasets.taxonomy import Taxonomy
    from ripu.module import RipuModule

INITIAL_WEIGHTS = 7
"""Key of the stream of random numbers that initial weights are drawn from, beside the seed."""


def make_network(cfg: DictConfig, *, is_fresh: bool = True) -> Any:
    """The network of a run, a :class:`ripu.models.protocol.SegmentationNetwork`, with the weights that it starts from.

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

    from ripu.loading.order import seed_of
    from ripu.models.checkpoints import CheckpointError, load_weights

    node = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(node, dict)
    checkpoint, key = node.pop("checkpoint", None), "model.checkpoint"
    if checkpoint is None and initial_labels.weights(cfg) is not None:
        checkpoint, key = initial_labels.weights(cfg), "start.run"
    if (checkpoint is not None or not is_fresh) and _takes(node["_target_"], "pretrained"):
        node["pretrained"] = False
    if is_fresh and checkpoint is not None:
        _feed_alike(node, checkpoint, key)
    with torch.random.fork_rng(
        devices=[]
    ):  # what came before in this process, other jobs of a sweep, has no part in it
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


def _feed_alike(node: dict[Any, Any], checkpoint: Any, key: str) -> None:
    """Normalise inputs as the network of a checkpoint was trained with; its weights do not tell.

    Raises:
        ConfigError: Its frozen batch norms had another epsilon, or the file cannot be read.
    """
    from ripu.models.checkpoints import CheckpointError, model_of

    try:
        trained = model_of(checkpoint)
    except CheckpointError as error:
        raise ConfigError(f"{key}: {error}") from error
    if trained.get("_target_") != node["_target_"]:
        return
    if "weights" in trained and _takes(node["_target_"], "pretrained"):
        node["weights"] = trained["weights"]  # which are not fetched, and say how inputs are normalised
    for name in ("mean", "std"):
        if node.get(name) is None and trained.get(name) is not None:
            node[name] = trained[name]
    if trained.get("norm_eps", node.get("norm_eps")) != node.get("norm_eps"):
        raise ConfigError(
            f"{key}={checkpoint} was trained with model.norm_eps={trained['norm_eps']}, not {node['norm_eps']}; give "
            f"model.norm_eps={trained['norm_eps']}"
        )


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
    initial_labels.check_files(cfg)
    if cfg.model.get("checkpoint") is not None or initial_labels.weights(cfg) is not None:
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

    from ripu.models.protocol import keeping_statistics

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
