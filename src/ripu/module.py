"""The LightningModule: the segmentation net, the losses and the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ripu.datasets.taxonomy import Taxonomy
from ripu.loading.order import seed_of
from ripu.losses import consistency_loss, negative_learning_loss, supervised_loss
from ripu.models.interface import keeping_statistics
from ripu.schedule import Plan
from ripu.training.evaluation_module import EvaluationModule
from ripu.training.step_failure import StepGuard, keep_failed_step, largest_gradients


def poly_factor(step: int, horizon: int, power: float) -> float:
    """Return the poly learning-rate factor ``(1 - step / horizon) ** power``; 0 past the horizon."""
    return float(max(0.0, 1.0 - step / horizon) ** power)


class RipuModule(EvaluationModule):
    """Trains a segmentation net with the objective of Eq. 12 and measures it.

    The loss is the sum of a source part (cross-entropy + alpha1 x consistency) and a target part (cross-entropy on
    revealed labels + alpha2 x negative learning). Their backward passes run one after the other, so that memory never
    holds two graphs. The gradients are those of the sum; several processes exchange them once a step. Batch norms that
    are not frozen normalise each domain by its own batch, and their running statistics follow the target once target
    images are read.

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
            network: A :class:`ripu.models.interface.SegmentationNetwork`.
            taxonomy, plan, seed: The classes, the schedule, the seed of dropout.
            learning_rate, momentum, weight_decay: Of SGD, ``learning_rate`` for the backbone at the start.
            head_lr_factor: Learning rate of the head over that of the backbone.
            poly_power, poly_horizon: See :func:`poly_factor`; the horizon is ``plan.max_steps`` by default.
            consistency_weight, negative_weight: alpha1 and alpha2 of Eq. 12.
            negative_threshold: tau of Eq. 10.
            supervised_average: See :func:`ripu.losses.supervised_loss`.
            boundary_only, boundary_detector, consistency_border: See :func:`ripu.losses.consistency_loss`.
            loss_epsilon: ``epsilon`` of :func:`ripu.losses.negative_learning_loss`.
            accumulate: Micro-batches in an optimiser step.
            flip: Average the softmax with that of the mirrored image in evaluation.
            channels_last, compile_network: Use the channels-last memory format; use ``torch.compile``.
            config: The resolved configuration as a plain container; stored in every checkpoint.
        """
        super().__init__(network, taxonomy, flip=flip, channels_last=channels_last, compile_network=compile_network)
        self.save_hyperparameters({"config": dict(config)} if config is not None else {})
        self.automatic_optimization = False
        self.plan, self.seed, self.accumulate = plan, seed, accumulate
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
        self.step_losses: dict[str, Tensor] = {}
        self._step = StepGuard()

    def source_loss(self, batch: Mapping[str, Tensor], *, with_consistency: bool) -> dict[str, Tensor]:
        """Return the weighted terms of Eq. 12 on a source batch; pre-training is without consistency.

        ``batch`` has ``image`` (B, 3, H, W) uint8 and ``label`` (B, H, W) uint8 train ids.
        """
        logits, shape = self(batch["image"]), batch.get("shape")
        terms = {"source_ce": supervised_loss(logits, batch["label"], average=self.supervised_average, shape=shape)}
        if with_consistency and self.consistency_weight:
            terms["consistency"] = self.consistency_weight * consistency_loss(
                logits,
                batch["label"],
                self.boundary_only,
                boundary_detector=self.boundary_detector,
                border=self.consistency_border,
                shape=shape,
            )
        return terms

    def target_loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted terms of Eq. 12 on a target batch, whose ``label`` is 255 where it is not revealed."""
        logits, shape = self(batch["image"]), batch.get("shape")
        terms = {"target_ce": supervised_loss(logits, batch["label"], average=self.supervised_average, shape=shape)}
        if self.negative_weight:
            terms["negative"] = self.negative_weight * negative_learning_loss(
                logits, self.negative_threshold, epsilon=self.loss_epsilon, shape=shape
            )
        return terms

    def domain_loss(
        self, batch: Mapping[str, Mapping[str, Tensor]], domain: str, *, with_consistency: bool
    ) -> dict[str, Tensor]:
        """Return the weighted terms of Eq. 12 on one domain, ``source`` or ``target``, of a batch."""
        if domain != "source":
            return self.target_loss(batch[domain])
        # Evaluation and selection see target images: if both domains are read, the target's statistics count.
        with keeping_statistics(self.network) if "target" in batch else nullcontext():
            return self.source_loss(batch[domain], with_consistency=with_consistency)

    def seed_step(self, step: int, micro_batch: int, rank: int) -> None:
        """Seed dropout from (seed, step, micro-batch, rank), so that the step can be repeated."""
        torch.manual_seed(seed_of(self.seed, step, micro_batch, rank))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, and remember the state before it."""
        micro_batch = batch_idx % self.accumulate
        if micro_batch == 0:
            self._step.begin(self.network)
        self.seed_step(self.global_step, micro_batch, self.global_rank)

    def undo_step(self) -> bool:
        """Restore the state before an unfinished step; return False if the optimiser was changing it."""
        return self._step.undo()

    def training_step(self, batch: dict[str, dict[str, Tensor]], batch_idx: int) -> None:
        """Train on a micro-batch: source backward, then target backward, then (after the last one) the optimiser."""
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        micro_batch = batch_idx % self.accumulate
        is_last_micro = micro_batch == self.accumulate - 1
        terms = self._backward(batch, is_last_micro=is_last_micro)
        loss = torch.stack(list(terms.values())).sum()
        checked = [loss.float()]
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # a scaler skips infinite gradients itself
            checked += largest_gradients(self.network, loss.device)
        if not torch.isfinite(torch.stack(checked)).all():  # one wait for the device, for loss and gradients together
            self._step.undo()
            world = self.trainer.world_size
            shared = f" (on this or another of {world} processes)" if world > 1 else ""
            cause = f"the gradient is not finite{shared}" if torch.isfinite(loss) else f"the loss is {loss.item()}"
            raise keep_failed_step(self, cause, batch, micro_batch, terms)
        before = self.step_losses if micro_batch else {}
        shares = {name: term / self.accumulate for name, term in {**terms, "loss": loss}.items()}
        self.step_losses = {name: before[name] + share if name in before else share for name, share in shares.items()}
        if is_last_micro:
            with self._step.changing():
                optimizer.step()  # type: ignore[union-attr]
                optimizer.zero_grad()  # type: ignore[union-attr]
                scheduler.step()  # type: ignore[union-attr]

    def _backward(self, batch: dict[str, dict[str, Tensor]], *, is_last_micro: bool) -> dict[str, Tensor]:
        """Run a forward and a backward pass for each domain in turn; return the detached terms of the loss."""
        is_adapting = not self.plan.is_pretraining(self.global_step)
        strategy: Any = self.trainer.strategy
        terms: dict[str, Tensor] = {}
        for domain in batch:
            is_last = is_last_micro and domain == next(reversed(batch))
            part_terms = self.domain_loss(batch, domain, with_consistency=is_adapting)
            total = torch.stack(list(part_terms.values())).sum() / self.accumulate
            # Ranks add their gradients up once a step, in the last pass.
            is_local = not is_last and isinstance(strategy, ParallelStrategy)
            with strategy.block_backward_sync() if is_local else nullcontext():
                self.manual_backward(total)
            terms |= {name: term.detach() for name, term in part_terms.items()}
        return terms

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return SGD with a group each for backbone and head, and the poly schedule."""
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
        """Resume at the checkpoint's step with a fresh epoch.

        Everything that training reads depends only on the step. So only the number of steps is restored of Lightning's
        loop state; the place inside an epoch follows from it.
        """
        trainer = self._trainer
        if trainer is None or trainer.state.fn != "fit":
            return
        checkpoint["loops"] = None
        epoch_loop = trainer.fit_loop.epoch_loop
        epoch_loop.manual_optimization.optim_step_progress.total.completed = checkpoint["global_step"]
