"""The LightningModule: the segmentation net, the objective and the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ripu.datasets.taxonomy import Taxonomy
from ripu.loading.order import seed_of
from ripu.models.interface import keeping_statistics
from ripu.objectives import Batch, Objective
from ripu.schedule import Plan
from ripu.training.evaluation_module import EvaluationModule, share_buffers
from ripu.training.optimizers import Optimization
from ripu.training.step_failure import StepGuard, gradient_norms, keep_failed_step

_KEPT_WEIGHTS = 8  # key, beside the seed, of the stream of random numbers that the weights of ``kept`` are drawn from


def _kept(objective: Objective, network: nn.Module, seed: int) -> nn.Module | None:
    """Make what an objective keeps beside the network; its random weights depend on the seed alone."""
    if not hasattr(objective, "keeps"):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, _KEPT_WEIGHTS))
        made: nn.Module = objective.keeps(network)
    return made


class RipuModule(EvaluationModule):
    """Trains a segmentation net with an objective and measures it.

    The loss is the sum of a source part and a target part. Their backward passes run one after the other, so that
    memory never holds two graphs. The gradients are those of the sum; several processes exchange them once a step.
    Batch norms that are not frozen normalise each domain by its own batch.

    Attributes:
        kept: What the objective keeps beside the network, e.g. a discriminator; None if it keeps nothing.
        num_renewals: The renewals that are over in the present step.
        step_losses: The terms of the last step and their sum ``loss``, means over its micro-batches.
    """

    def __init__(
        self,
        network: nn.Module,
        taxonomy: Taxonomy,
        plan: Plan,
        *,
        seed: int,
        objective: Objective,
        optimization: Optimization,
        average_decay: float | None = None,
        norm_statistics: Literal["target", "both"] = "target",
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
            objective: The terms of the loss.
            optimization: The optimiser and its learning rates.
            average_decay: Keep a :class:`ripu.models.average.MovingAverage` of the weights, which evaluations and
                rounds use in the place of the network; None: the network itself is used.
            norm_statistics: The batches that move the running statistics of norms: of the ``target`` alone, once target
                images are read, or of ``both`` domains. Evaluation and selection see target images.
            accumulate: Micro-batches in an optimiser step.
            flip: Average the softmax with that of the mirrored image in evaluation.
            channels_last, compile_network: Use the channels-last memory format; use ``torch.compile``.
            config: The resolved configuration as a plain container; stored in every checkpoint.
        """
        super().__init__(
            network,
            taxonomy,
            flip=flip,
            channels_last=channels_last,
            compile_network=compile_network,
            average_decay=average_decay,
        )
        self.save_hyperparameters({"config": dict(config)} if config is not None else {})
        self.automatic_optimization = False
        self.plan, self.seed, self.accumulate = plan, seed, accumulate
        self.objective, self.optimization, self.norm_statistics = objective, optimization, norm_statistics
        self.kept = _kept(objective, self.network, seed)
        self.num_renewals = 0
        self.step_losses: dict[str, Tensor] = {}
        self._step = StepGuard()

    def domain_loss(self, batch: Mapping[str, Batch], domain: str, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return the weighted terms of the loss on one domain, ``source`` or ``target``, of a batch."""
        if domain == "source":
            keeps = "target" in batch and self.norm_statistics == "target"
            with keeping_statistics(self.network) if keeps else nullcontext():
                return self.objective.source_terms(self, batch["source"], is_adapting=is_adapting)
        teacher = None if self.average is None else self.teacher
        return self.objective.target_terms(self, batch["target"], source=batch.get("source"), teacher=teacher)

    def seed_step(self, step: int, micro_batch: int, rank: int) -> None:
        """Seed dropout from (seed, step, micro-batch, rank), so that the step can be repeated, and count renewals."""
        self.num_renewals = self.plan.num_renewals(step)
        torch.manual_seed(seed_of(self.seed, step, micro_batch, rank))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, and remember the state before it."""
        micro_batch = batch_idx % self.accumulate
        if micro_batch == 0:
            self._step.begin(self.network, self.average, self.kept)
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
            for part in (self.network, *self._own_parts):
                checked += gradient_norms(part, loss.device)
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
                step = self.global_step
                optimizer.step()  # type: ignore[union-attr]
                optimizer.zero_grad()  # type: ignore[union-attr]
                scheduler.step()  # type: ignore[union-attr]
                if self.average is not None:
                    is_taught = self.objective.needs_teacher and "target" in batch
                    self.average.move(self.network, step, statistics=not is_taught)
                    if self.objective.needs_teacher and self.trainer.world_size > 1:
                        share_buffers(self.average)  # else a rank's own statistics would decide its pseudo-labels
                if self.trainer.world_size > 1:
                    for part in self._own_parts:
                        share_buffers(part)

    @property
    def _own_parts(self) -> tuple[nn.Module, ...]:
        """The one module that the objective keeps, or nothing."""
        return () if self.kept is None else (self.kept,)

    def _backward(self, batch: dict[str, dict[str, Tensor]], *, is_last_micro: bool) -> dict[str, Tensor]:
        """Run a forward and a backward pass for each domain in turn; return the detached terms of the loss."""
        is_adapting = not self.plan.is_pretraining(self.global_step)
        strategy: Any = self.trainer.strategy
        terms: dict[str, Tensor] = {}
        for domain in batch:
            is_last = is_last_micro and domain == next(reversed(batch))
            part_terms = self.domain_loss(batch, domain, is_adapting=is_adapting)
            total = torch.stack(list(part_terms.values())).sum() / self.accumulate
            if is_last and (own := [one for part in self._own_parts for one in part.parameters() if one.requires_grad]):
                total = total + 0.0 * torch.stack([one.sum() for one in own]).sum()  # ranks wait for every gradient
            # Ranks add their gradients up once a step, in the last pass.
            is_local = not is_last and isinstance(strategy, ParallelStrategy)
            with strategy.block_backward_sync() if is_local else nullcontext():
                self.manual_backward(total)
            terms |= {name: term.detach() for name, term in part_terms.items()}
        return terms

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Limit the gradient, if there is a limit; a scaler has divided by its scale by now."""
        if self.optimization.clip_norm is not None:
            trained = [one for part in (self.network, *self._own_parts) for one in part.parameters()]
            torch.nn.utils.clip_grad_norm_(trained, self.optimization.clip_norm)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimiser and the schedule of its learning rates."""
        factor = float(getattr(self.objective, "kept_lr_factor", 1.0))
        optimizer = self.optimization.optimizer(self.network, self.kept, factor)
        max_steps = self.plan.max_steps
        schedule = LambdaLR(optimizer, lambda step: self.optimization.factor(step, max_steps))
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
