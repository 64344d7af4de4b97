"""A network that predicts raw images and measures its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ripu.acquisition import Features
from ripu.datasets.errors import SceneError
from ripu.datasets.taxonomy import Taxonomy
from ripu.functional import NonFiniteLogitsError, join_views, map_confidence_and_label
from ripu.loading.samples import of_one_size
from ripu.models.average import MovingAverage
from ripu.models.features import with_features
from ripu.training.fitting_parts import FittingParts
from ripu.training.metrics import ConfusionMatrix, SegmentationScores, scores_from_confusion
from ripu.training.step_failure import NonFiniteError

OnPrediction = Callable[[int, Tensor, Tensor, Tensor], None]
"""Receives the index of an image, its prediction (H, W) uint8 (int32 of more than 255 classes), the probability of the
predicted class (H, W) float32, and its label (H, W) uint8."""


def share_buffers(network: nn.Module) -> None:
    """Give every rank the buffers of rank 0, e.g. running statistics, in one message for each type of number."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for buffer in network.buffers():
        by_type.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_type.values():
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        torch.distributed.broadcast(flat, src=0)
        parts = torch.split(flat, [buffer.numel() for buffer in buffers])
        for buffer, values in zip(buffers, parts, strict=True):
            buffer.copy_(values.view_as(buffer))


class EvaluationModule(pl.LightningModule):
    """The part of the LightningModule that predicts and evaluates.

    Attributes:
        counts: (C, C) confusion matrix of the last evaluation over all ranks; rows are truth, columns prediction.
        scores: The scores of the last evaluation.
    """

    def __init__(
        self,
        network: nn.Module,
        taxonomy: Taxonomy,
        *,
        flip: bool = False,
        channels_last: bool = False,
        compile_network: bool = False,
        average_decay: float | None = None,
    ) -> None:
        """Take the network; see :class:`ripu.module.RipuModule`."""
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self.average = None if average_decay is None else MovingAverage(self.network, average_decay)
        if compile_network:
            self.network.compile()
            if self.average is not None:
                self.average.compile()
        self.taxonomy, self.flip, self.channels_last = taxonomy, flip, channels_last
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(network.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(network.std).view(1, -1, 1, 1), persistent=False)
        self.confusion = ConfusionMatrix(taxonomy.num_classes)
        self.scores: SegmentationScores | None = None
        self.counts: Tensor | None = None
        self.on_prediction: OnPrediction | None = None
        self._parts = FittingParts()

    def forward(self, image: Tensor) -> Tensor:
        """Return the (B, C, H, W) logits of raw images, (B, bands, H, W) uint8.

        In training mode they are those of the network; in evaluation mode those of its average, if there is one.
        """
        average = None if self.training else self.average
        logits: Tensor = (self.network if average is None else average)(self._normalised(image))
        return logits

    def with_features(self, image: Tensor) -> tuple[Tensor, Features]:
        """Return what :meth:`forward` does, though never compiled, and the features that the classifier has read."""
        network = self.network if self.training or self.average is None else self.average.network
        return self._with_features(network, image)

    def _with_features(self, network: nn.Module, image: Tensor) -> tuple[Tensor, Features]:
        logits, values = with_features(network, self._normalised(image))
        multiple = getattr(network, "multiple", 1)  # inputs are padded to it
        height, width = (-(-side // multiple) * multiple for side in logits.shape[-2:])
        return logits, Features(values, (height, width))

    def teacher(self, image: Tensor) -> Tensor:
        """Return the logits of the average of the network, without a gradient; see :meth:`MovingAverage.follow`."""
        assert self.average is not None
        return self.average.follow(self._normalised(image), self.network)

    @torch.no_grad()
    def teacher_with_features(self, image: Tensor) -> tuple[Tensor, Features]:
        """Return what :meth:`teacher` does, though never compiled, and the features that its classifier has read."""
        assert self.average is not None
        with self.average.following(self.network):
            return self._with_features(self.average.network, image)

    def _normalised(self, image: Tensor) -> Tensor:
        normalised = (image.float() / 255.0 - self.mean) / self.std
        return normalised.contiguous(memory_format=torch.channels_last) if self.channels_last else normalised

    def predict_label(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the most probable class at label resolution, averaged with the mirrored image if ``flip`` is set.

        Args:
            image: (B, bands, h, w) uint8 at network size.
            size: (height, width) of the result, (B, height, width) uint8, or int32 of more than 255 classes.
        """
        return map_confidence_and_label(self._views(image), size, self.num_views)[1]

    @property
    def num_views(self) -> int:
        """The views of an image that a prediction averages."""
        return 1 + self.flip

    def _views(self, image: Tensor) -> Tensor:
        """Return the logits of each view of images, (B, num_views * C, h, w), of one forward pass if it fits."""
        views = torch.cat([image, image.flip(-1)]) if self.flip else image
        logits = torch.cat(list(self._parts(views, self)))
        return join_views(*torch.split(logits, len(image)))

    def _evaluate_batch(self, batch: Mapping[str, Any]) -> list[Tensor]:
        predictions: list[Tensor] = []
        if not batch["label"]:  # none of the files could be read
            return predictions
        for images in of_one_size(batch["image"]):
            for own in self._views(images)[:, None]:
                place = len(predictions)
                predictions.append(self._measure(int(batch["index"][place]), own, batch["label"][place]))
        return predictions

    def _measure(self, index: int, logits: Tensor, label: Tensor) -> Tensor:
        """Count the prediction of an image; return it, (H, W)."""
        try:
            size = (int(label.shape[0]), int(label.shape[1]))
            confidence, prediction = map_confidence_and_label(logits, size, self.num_views)
        except NonFiniteLogitsError as error:
            is_full = str(self.trainer.precision) == "32-true"
            raise NonFiniteError(
                f"the network's output for image {index} of the evaluation (from 0) is NaN or infinite and "
                f"cannot be measured: the weights have diverged or are damaged"
                f"{'' if is_full else ', or 16-bit precision is not enough'}. Start a new run with a lower "
                "optimizer.learning_rate, or use another checkpoint"
                f"{'' if is_full else ', or set trainer.precision=32-true (for evaluate: precision=32-true)'}"
            ) from error
        if self.on_prediction is not None:
            self.on_prediction(index, prediction[0], confidence[0], label)
        self.confusion.update(prediction, label[None])
        return prediction[0]

    def _finish_evaluation(self, stage: str) -> None:
        self.counts = self.confusion.compute()
        if not int(self.counts.sum()):
            raise SceneError(
                "nothing could be measured: no readable validation image has a labelled pixel; restore the files "
                "(python -m ripu.doctor lists them), or name others"
            )
        self.scores = scores_from_confusion(self.counts, self.taxonomy)
        self.confusion.reset()
        if self._trainer is not None:  # else Lightning counts micro-batches
            self.log("step", float(self.trainer.global_step), rank_zero_only=True)
        # The final test uses the same images as the evaluations on the way, so it also ends their curves.
        for name in dict.fromkeys((stage, "val")):
            values = {f"{name}/{key}": value for key, value in self.scores.to_metrics().items()}
            self.log_dict(values, rank_zero_only=True)

    def on_validation_start(self) -> None:
        """Give every rank the running statistics of rank 0, which checkpoints contain; a round uses them too.

        Each rank's statistics follow its own batches; with manual optimisation, DDP does not share buffers.
        """
        if self._trainer is not None and self._trainer.world_size > 1:
            for network in (self.network, self.average):
                if network is not None:
                    share_buffers(network)

    on_test_start = on_validation_start

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch to the confusion matrix."""
        self._evaluate_batch(batch)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/mIoU`` and its parts."""
        self._finish_evaluation("val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor]:  # type: ignore[override]
        """Add a batch to the confusion matrix, and return the predictions, (H, W) each."""
        return self._evaluate_batch(batch)

    def on_test_epoch_end(self) -> None:
        """Log ``test/mIoU`` and its parts."""
        self._finish_evaluation("test")
