"""The LightningModule: the segmentation net, the losses, the optimiser, and evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ripu.datasets.errors import SceneError
from ripu.datasets.taxonomy import Taxonomy
from ripu.loading.order import seed_of
from ripu.losses import consistency_loss, negative_learning_loss, supervised_loss
from ripu.schedule import Plan
from ripu.training import step_failure
from ripu.training.metrics import ConfusionMatrix, SegmentationScores, scores_from_confusion
from ripu.training.step_guard import StepGuard


class SegmentationNetwork(Protocol):
    """What a network of this package offers; any ``nn.Module`` with these members will do.

    Attributes:
        num_classes: Number of classes C.
        mean: RGB mean (0..1 scale) that inputs are normalised with.
        std: RGB standard deviation (0..1 scale) that inputs are normalised with.
    """

    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Tensor) -> Tensor:
        """Logits (B, C, H, W) of normalised images (B, 3, H, W), for any H and W."""

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Trainable parameters of the backbone and of the head."""


def poly_factor(step: int, horizon: int, power: float) -> float:
    """Poly learning-rate factor ``(1 - step / horizon) ** power``; 0 past the horizon."""
    return float(max(0.0, 1.0 - step / horizon) ** power)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode; afterwards every submodule has exactly the mode that it had."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def keeping_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms in training mode normalise by the batch, but leave their running statistics as they are."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class OnPrediction(Protocol):
    """Somebody who looks at every prediction of an evaluation, e.g. for a report."""

    def __call__(self, index: int, prediction: Tensor, logits: Tensor, label: Tensor) -> None:
        """Be shown an image of this rank.

        Args:
            index: Position of the image.
            prediction: (H, W) int64 train ids.
            logits: (C, H, W) floating; log-probabilities up to a constant a pixel.
            label: (H, W) uint8 train ids, 255 = void.
        """


class RipuModule(pl.LightningModule):
    """Trains a segmentation net with the objective of Eq. 12 and measures it.

    One optimiser step is the sum of a source part (cross-entropy + alpha1 x consistency) and a target part
    (cross-entropy on what is revealed + alpha2 x negative learning). Their backward passes run one after the other, so
    that two graphs are never held at once; the gradients are those of the sum, and several processes exchange them once
    a step. Batch norms that are not frozen normalise each domain by its own batch; their running statistics follow the
    target as soon as target images are read.

    Attributes:
        step_losses: The terms of the last step and their sum ``loss``, means over its micro-batches.
    """

    def __init__(
        self,
        network: nn.Module,
        taxonomy: Taxonomy,
        plan: Plan,
        *,
        seed: int,
        learning_rate: float,
        head_lr_factor: float = 10.0,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        poly_power: float = 0.9,
        poly_horizon: int | None = None,
        consistency_weight: float = 0.1,
        negative_weight: float = 1.0,
        negative_threshold: float = 0.05,
        supervised_average: str = "labelled",
        boundary_only: bool = True,
        boundary_detector: str = "neighbors",
        consistency_border: str = "clip",
        loss_epsilon: float = 0.0,
        accumulate: int = 1,
        flip: bool = False,
        channels_last: bool = False,
        compile_network: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Assemble the module.

        Args:
            network: A :class:`SegmentationNetwork`.
            taxonomy: The classes.
            plan: When pre-training ends and training stops.
            seed: Seed of dropout.
            learning_rate: Initial learning rate of the backbone.
            head_lr_factor: Learning rate of the head over that of the backbone.
            momentum: SGD momentum.
            weight_decay: L2 penalty on every parameter.
            poly_power: Exponent of the poly schedule.
            poly_horizon: Step at which the poly schedule reaches 0; ``plan.max_steps`` by default.
            consistency_weight: alpha1 of Eq. 12.
            negative_weight: alpha2 of Eq. 12.
            negative_threshold: tau of Eq. 10.
            supervised_average: See :func:`ripu.losses.supervised_loss`.
            boundary_only: See :func:`ripu.losses.consistency_loss`.
            boundary_detector: See :func:`ripu.losses.label_boundary`.
            consistency_border: ``border`` of :func:`ripu.losses.consistency_loss`.
            loss_epsilon: ``epsilon`` of :func:`ripu.losses.negative_learning_loss`.
            accumulate: Micro-batches an optimiser step.
            flip: Average the softmax with that of the mirrored image in evaluation.
            channels_last: Keep the network in channels-last memory format.
            compile_network: Run the network through ``torch.compile``.
            config: The resolved configuration as a plain container; kept in every checkpoint.
        """
        super().__init__()
        self.save_hyperparameters({"config": dict(config)} if config is not None else {})
        self.automatic_optimization = False
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        if compile_network:
            self.network.compile()
        self.taxonomy = taxonomy
        self.plan = plan
        self.seed = seed
        self.learning_rate, self.head_lr_factor = learning_rate, head_lr_factor
        self.momentum, self.weight_decay = momentum, weight_decay
        self.poly_power, self.poly_horizon = poly_power, poly_horizon or plan.max_steps
        self.consistency_weight, self.negative_weight = consistency_weight, negative_weight
        self.negative_threshold = negative_threshold
        self.supervised_average: Any = supervised_average
        self.boundary_only = boundary_only
        self.boundary_detector: Any = boundary_detector
        self.consistency_border: Any = consistency_border
        self.loss_epsilon = loss_epsilon
        self.accumulate = accumulate
        self.flip = flip
        self.channels_last = channels_last
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(network.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(network.std).view(1, 3, 1, 1), persistent=False)
        self.confusion = ConfusionMatrix(taxonomy.num_classes)
        self.scores: SegmentationScores | None = None
        self.counts: Tensor | None = None
        self.on_prediction: OnPrediction | None = None
        self.step_losses: dict[str, Tensor] = {}
        self._step = StepGuard()

    def forward(self, image: Tensor) -> Tensor:
        """Logits of raw images.

        Args:
            image: (B, 3, H, W) uint8 RGB.

        Returns:
            (B, C, H, W) float logits.
        """
        normalised = (image.float() / 255.0 - self.mean) / self.std
        if self.channels_last:
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(normalised)
        return logits

    # ---------------------------------------------------------------- training

    def source_loss(self, batch: Mapping[str, Tensor], *, with_consistency: bool) -> dict[str, Tensor]:
        """The terms of Eq. 12 on a source batch, weights included.

        Args:
            batch: ``image`` (B, 3, H, W) uint8 and ``label`` (B, H, W) uint8 train ids.
            with_consistency: Whether the consistency term counts; it does not in pre-training.
        """
        logits = self(batch["image"])
        terms = {"source_ce": supervised_loss(logits, batch["label"], average=self.supervised_average)}
        if with_consistency and self.consistency_weight:
            terms["consistency"] = self.consistency_weight * consistency_loss(
                logits,
                batch["label"],
                self.boundary_only,
                boundary_detector=self.boundary_detector,
                border=self.consistency_border,
            )
        return terms

    def target_loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms of Eq. 12 on a target batch, weights included.

        Args:
            batch: ``image`` (B, 3, H, W) uint8 and ``label`` (B, H, W) uint8 train ids, 255 where not revealed.
        """
        logits = self(batch["image"])
        terms = {"target_ce": supervised_loss(logits, batch["label"], average=self.supervised_average)}
        if self.negative_weight:
            terms["negative"] = self.negative_weight * negative_learning_loss(
                logits, self.negative_threshold, epsilon=self.loss_epsilon
            )
        return terms

    def domain_loss(
        self, batch: Mapping[str, Mapping[str, Tensor]], domain: str, *, with_consistency: bool
    ) -> dict[str, Tensor]:
        """The terms of Eq. 12 on one domain of a batch, weights included.

        Args:
            batch: The batches of both domains, or of one.
            domain: ``source`` or ``target``.
            with_consistency: Whether the consistency term counts; it does not in pre-training.
        """
        if domain != "source":
            return self.target_loss(batch[domain])
        # Evaluation and selection see target images: where both are read, the target's statistics count.
        with keeping_statistics(self.network) if "target" in batch else nullcontext():
            return self.source_loss(batch[domain], with_consistency=with_consistency)

    def seed_step(self, step: int, micro_batch: int, rank: int) -> None:
        """Seed what is random in a step (dropout) from (seed, step, micro-batch, rank), so that it can be repeated."""
        torch.manual_seed(seed_of(self.seed, step, micro_batch, rank))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, and remember what is needed to undo it."""
        micro_batch = batch_idx % self.accumulate
        if micro_batch == 0:
            self._step.begin(self.network)
        self.seed_step(self.global_step, micro_batch, self.global_rank)

    def undo_step(self) -> bool:
        """Go back to the beginning of a step that an error broke off.

        Returns:
            Whether weights, statistics and optimiser are now those of :attr:`global_step`; False where the error struck
            while the optimiser was changing them.
        """
        return self._step.undo()

    def training_step(self, batch: dict[str, dict[str, Tensor]], batch_idx: int) -> None:
        """One micro-batch: source backward, then target backward, then (when accumulated) the optimiser."""
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        is_adapting = not self.plan.is_pretraining(self.global_step)
        is_last_micro = (batch_idx + 1) % self.accumulate == 0
        terms: dict[str, Tensor] = {}
        for domain in batch:  # a forward each, right before its backward
            is_last = is_last_micro and domain == next(reversed(batch))
            part_terms = self.domain_loss(batch, domain, with_consistency=is_adapting)
            total = torch.stack(list(part_terms.values())).sum() / self.accumulate
            with nullcontext() if is_last else self._unshared():
                self.manual_backward(total)
            terms |= {name: term.detach() for name, term in part_terms.items()}
        loss = torch.stack(list(terms.values())).sum()
        checked = [loss.float(), *self._largest_gradients(loss.device)]
        if not torch.isfinite(torch.stack(checked)).all():  # the device is waited for once, for loss and gradients
            self._step.undo()
            shared = (
                f" (on this or another of {self.trainer.world_size} processes)" if self.trainer.world_size > 1 else ""
            )
            what = f"the gradient is not finite{shared}" if torch.isfinite(loss) else f"the loss is {loss.item()}"
            raise step_failure.fail(self, what, batch, batch_idx % self.accumulate, terms)
        self._count_losses({**terms, "loss": loss}, is_first=batch_idx % self.accumulate == 0)
        if is_last_micro:
            with self._step.changing():
                optimizer.step()  # type: ignore[union-attr]
                optimizer.zero_grad()  # type: ignore[union-attr]
                scheduler.step()  # type: ignore[union-attr]

    def _count_losses(self, terms: Mapping[str, Tensor], *, is_first: bool) -> None:
        """Add a micro-batch's share to the losses of its step."""
        before = {} if is_first else self.step_losses
        shares = {name: term / self.accumulate for name, term in terms.items()}
        self.step_losses = {name: before[name] + share if name in before else share for name, share in shares.items()}

    def _largest_gradients(self, device: torch.device) -> list[Tensor]:
        """The largest magnitude in each gradient, float32; none with a scaler, which leaves infinite ones out by itself."""
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return []
        gradients = [one.grad for one in self.network.parameters() if one.grad is not None]
        return [one.to(device, torch.float32) for one in torch._foreach_norm(gradients, math.inf)] if gradients else []

    def _unshared(self) -> AbstractContextManager[None]:
        """A backward pass whose gradients stay on this rank: ranks add theirs up once a step, in the last one."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with one group for the backbone and one for the head, and the poly schedule."""
        backbone, head = self.network.parameter_groups()  # type: ignore[operator]
        groups = [
            {"params": backbone, "lr": self.learning_rate, "name": "backbone"},
            {"params": head, "lr": self.learning_rate * self.head_lr_factor, "name": "head"},
        ]
        optimizer = torch.optim.SGD(
            groups, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: poly_factor(step, self.poly_horizon, self.poly_power)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on at the checkpoint's step with a fresh epoch.

        Everything that training reads depends on the step alone, so of Lightning's loop state only the number of
        steps is taken over: the place inside an epoch is found again from it.
        """
        trainer = self._trainer
        if trainer is None or trainer.state.fn != "fit":
            return
        checkpoint["loops"] = None
        epoch_loop = trainer.fit_loop.epoch_loop
        epoch_loop.manual_optimization.optim_step_progress.total.completed = checkpoint["global_step"]

    # -------------------------------------------------------------- evaluation

    def predict_probs(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Softmax at label resolution, averaged with the mirrored image where ``flip`` is set.

        Args:
            image: (1, 3, h, w) uint8 RGB at network size.
            size: (height, width) of the result.

        Returns:
            (1, C, height, width) float32 probabilities.
        """

        def probs(pixels: Tensor) -> Tensor:
            logits = self(pixels).float()
            return F.interpolate(logits, size, mode="bilinear", align_corners=True).softmax(dim=1)

        result = probs(image)
        if self.flip:
            result = (result + probs(image.flip(-1)).flip(-1)) / 2
        return result

    def predict_label(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Most probable class at label resolution.

        Args:
            image: (1, 3, h, w) uint8 RGB at network size.
            size: (height, width) of the result.

        Returns:
            (1, height, width) int64 train ids.
        """
        return self._predict_scores(image, size).argmax(dim=1)  # the softmax does not change which logit is largest

    def _predict_scores(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """(1, C, height, width): what :meth:`predict_label` takes the largest of."""
        if self.flip:
            return self.predict_probs(image, size)
        return F.interpolate(self(image).float(), size, mode="bilinear", align_corners=True)

    def _evaluate_batch(self, batch: Mapping[str, Any]) -> list[Tensor]:
        predictions = []
        for index, image, label in zip(batch["index"], batch["image"], batch["label"], strict=True):
            scores = self._predict_scores(image[None], (int(label.shape[0]), int(label.shape[1])))
            if not bool(scores.sum().isfinite()):
                raise FloatingPointError(
                    f"the network's output for image {int(index)} of the evaluation (from 0) is NaN or infinite and cannot be "
                    "measured: the weights have diverged or are damaged, or 16 bits are too few; lower optimizer.learning_rate "
                    "(in a run of its own), use another checkpoint, or trainer.precision=32-true (evaluate: precision=32-true)"
                )
            prediction = scores.argmax(dim=1)
            if self.on_prediction is not None:
                self.on_prediction(int(index), prediction[0], scores[0].log() if self.flip else scores[0], label)
            self.confusion.update(prediction, label[None])
            predictions.append(prediction[0])
        return predictions

    def _finish_evaluation(self, stage: str) -> None:
        self.counts = self.confusion.compute()
        if not int(self.counts.sum()):
            raise SceneError(
                "nothing could be measured: no validation image that can be read has a labelled pixel; restore the files "
                "(python -m ripu.doctor lists them), or name others"
            )
        self.scores = scores_from_confusion(self.counts, self.taxonomy)
        self.confusion.reset()
        values = {"mIoU": self.scores.miou, "pixel_accuracy": self.scores.pixel_accuracy, **self.scores.subsets}
        values |= {f"iou/{name}": iou for name, iou in self.scores.per_class_iou.items() if iou is not None}
        if self.scores.subsets:  # where there are several means, that over all classes is also called by their number
            values[f"mIoU{self.taxonomy.num_classes}"] = self.scores.miou
        if self._trainer is not None:  # else Lightning counts micro-batches
            self.log("step", float(self.trainer.global_step), rank_zero_only=True)
        # The last evaluation is of the same images, so it is also the end of the curves of those on the way.
        for name in dict.fromkeys((stage, "val")):
            self.log_dict({f"{name}/{key}": value for key, value in values.items()}, rank_zero_only=True)

    def on_validation_start(self) -> None:
        """Measure one network on all ranks; the round that may follow reads it too."""
        self._share_statistics()

    def on_test_start(self) -> None:
        """Measure one network on all ranks."""
        self._share_statistics()

    def _share_statistics(self) -> None:
        """Give every rank the running statistics of rank 0, which are those that checkpoints hold.

        Each rank follows the batches that it sees, and DDP shares buffers in forwards alone, not with manual optimisation.
        """
        if self._trainer is not None and self._trainer.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch to the confusion matrix."""
        self._evaluate_batch(batch)

    def on_validation_epoch_end(self) -> None:
        """Turn the confusion matrix into ``val/mIoU`` and its parts."""
        self._finish_evaluation("val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor]:  # type: ignore[override]
        """Add a batch to the confusion matrix; returns the predictions, (H, W) int64 each."""
        return self._evaluate_batch(batch)

    def on_test_epoch_end(self) -> None:
        """Turn the confusion matrix into ``test/mIoU`` and its parts."""
        self._finish_evaluation("test")
