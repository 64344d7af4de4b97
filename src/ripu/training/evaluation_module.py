"""A network that predicts raw images and measures its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.datasets.errors import SceneError
from ripu.datasets.taxonomy import Taxonomy
from ripu.models.average import MovingAverage
from ripu.training.metrics import ConfusionMatrix, SegmentationScores, scores_from_confusion
from ripu.training.step_failure import NonFiniteError

OnPrediction = Callable[[int, Tensor, Tensor, Tensor], None]
"""Receives the index of an image, its prediction (H, W) int64, log-probabilities up to a constant per pixel (C, H, W),
and its label (H, W) uint8."""


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

    def forward(self, image: Tensor) -> Tensor:
        """Return the (B, C, H, W) logits of raw images, (B, bands, H, W) uint8.

        In training mode they are those of the network; in evaluation mode those of its average, if there is one.
        """
        average = None if self.training else self.average
        logits: Tensor = (self.network if average is None else average)(self._normalised(image))
        return logits

    def teacher(self, image: Tensor) -> Tensor:
        """Return the logits of the average of the network, without a gradient; see :meth:`forward`."""
        assert self.average is not None
        with torch.no_grad():
            logits: Tensor = self.average(self._normalised(image))
        return logits

    def _normalised(self, image: Tensor) -> Tensor:
        normalised = (image.float() / 255.0 - self.mean) / self.std
        return normalised.contiguous(memory_format=torch.channels_last) if self.channels_last else normalised

    def predict_probs(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the softmax at label resolution, averaged with the mirrored image if ``flip`` is set.

        Args:
            image: (1, bands, h, w) uint8 at network size.
            size: (height, width) of the result, (1, C, height, width) float32.
        """
        result = self._sized_logits(image, size).softmax(dim=1)
        if self.flip:
            result = (result + self._sized_logits(image.flip(-1), size).softmax(dim=1).flip(-1)) / 2
        return result

    def predict_label(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the most probable class, (1, height, width) int64; see :meth:`predict_probs`."""
        return self._predict_scores(image, size).argmax(dim=1)

    def _predict_scores(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return (1, C, height, width) logits, or probabilities if ``flip`` is set; their largest is the prediction."""
        return self.predict_probs(image, size) if self.flip else self._sized_logits(image, size)

    def _sized_logits(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(self(image).float(), size, mode="bilinear", align_corners=True)

    def _evaluate_batch(self, batch: Mapping[str, Any]) -> list[Tensor]:
        predictions = []
        for index, image, label in zip(batch["index"], batch["image"], batch["label"], strict=True):
            scores = self._predict_scores(image[None], (int(label.shape[0]), int(label.shape[1])))
            if not bool(scores.sum().isfinite()):
                is_full = str(self.trainer.precision) == "32-true"
                raise NonFiniteError(
                    f"the network's output for image {int(index)} of the evaluation (from 0) is NaN or infinite and "
                    f"cannot be measured: the weights have diverged or are damaged"
                    f"{'' if is_full else ', or 16-bit precision is not enough'}. Start a new run with a lower "
                    "optimizer.learning_rate, or use another checkpoint"
                    f"{'' if is_full else ', or set trainer.precision=32-true (for evaluate: precision=32-true)'}"
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
        """Add a batch to the confusion matrix, and return the predictions, (H, W) int64 each."""
        return self._evaluate_batch(batch)

    def on_test_epoch_end(self) -> None:
        """Log ``test/mIoU`` and its parts."""
        self._finish_evaluation("test")
