"""The interface of an objective: the terms of the loss on source and target images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ripu.acquisition import Features

Batch = Mapping[str, Tensor]
"""A batch of one domain.

``image`` (B, bands, H, W) uint8, ``label`` (B, H, W) uint8 train ids with 255 = none, after a renewal that has made
pseudo-labels ``pseudo`` in the same form, and, of padded images,
``shape`` (B, 2), which stays on the CPU so that nobody waits for the device to read it; see :mod:`ripu.losses`.
"""

Network = Callable[[Tensor], Tensor]
"""Maps raw images, (B, bands, H, W) uint8, to logits, (B, C, H, W)."""


class Student(Protocol):
    """The network in training, for objectives that look behind its logits.

    Attributes:
        kept: The objective's own part, see :class:`Objective`; None if it has none.
        num_renewals: The renewals that are over.
    """

    kept: Any
    num_renewals: int

    def __call__(self, image: Tensor) -> Tensor:
        """Return the logits, as a :data:`Network` does."""
        ...

    def with_features(self, image: Tensor) -> tuple[Tensor, Features]:
        """Return the logits and the features that the classifier has read."""
        ...

    def teacher_with_features(self, image: Tensor) -> tuple[Tensor, Features]:
        """Return the same of the moving average of the network, without a gradient; only with a teacher."""
        ...


class Objective(Protocol):
    """The terms that training minimises; one file and one ``conf/objective/*.yaml`` make a new one.

    The terms of each domain are functions of its batch and of random numbers from the generator of torch, which the
    module seeds for every step. Each term is a scalar, already weighted, and is logged under its name.

    An objective has no state. It may have more members, which is what a method of ``conf/method`` needs:

    - ``keeps(network)`` returns what it keeps beside the network, a ``nn.Module``: a discriminator, prototypes or a
      second head. The module registers it, so checkpoints, ranks and undone steps treat it as they do the network, and
      gives it to the terms as ``student.kept``. Its parameters are trained at ``kept_lr_factor`` (default 1) times the
      learning rate. Its buffers may change in terms; ranks then take those of rank 0. ``kept_parts`` names those of
      its attributes that scores may read.
    - ``previous``: the run, or the checkpoint, of a network to learn from. A new run refuses to begin without it, and
      gives that network to ``kept.begin(network)``; a resumed run has it in its own checkpoint. ``previous_method`` is
      the method whose run it may be.
    - ``translated``: a folder of images in the style of the other domain (:mod:`ripu.datasets.translated`). A new run
      refuses to begin without it. Training reads its images in the place of originals in half of the samples, and
      renewals average the probabilities of both.
    - ``survey(logits, features)`` and ``learn(found, kept, number)``: a renewal looks at every target image, logits
      (1, C, h, w) of the network in evaluation mode, and then learns from what it found, an array of one shape for all
      images: their sum if ``adds_surveys``, else all of them, stacked in the order of the images. They are held in
      memory, so ``most_surveyed`` limits the images, evenly spread; without it, all are looked at. ``learn`` may change
      buffers of ``kept``, on all ranks alike, and returns what ``pseudo_label`` needs.
    - ``needs_renewal``: True if its target terms are of no use before the first renewal; runs without one are refused.
    - ``left_out(plan)`` returns the part of the method that a schedule leaves no steps for, with the remedy, or None;
      such runs are refused, too.
    - ``needs_features``: True if its terms or ``survey`` read :class:`ripu.acquisition.Features`; else ``survey`` gets
      None.
    - ``pseudo_label(logits, learnt)`` returns the pseudo-labels of an image, (1, h, w) uint8 with 255 for none. They
      are in the batches of the phases that follow, as ``pseudo``, cut and mirrored with the image.
    - ``facts(learnt)`` returns what is worth knowing of a renewal, as JSON.

    Attributes:
        needs_teacher: True if :meth:`target_terms` uses the teacher.
    """

    needs_teacher: ClassVar[bool]

    def source_terms(self, student: Network, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return the terms on source images; in pre-training ``is_adapting`` is False."""
        ...

    def target_terms(
        self, student: Network, batch: Batch, *, source: Batch | None, teacher: Network | None
    ) -> dict[str, Tensor]:
        """Return the terms on target images, whose ``label`` is 255 where it is not revealed.

        Args:
            student: The network in training.
            batch: The target images.
            source: The source images of the same step; None if the run reads none.
            teacher: The moving average of the network; its outputs have no gradient. None if the run has none.
        """
        ...
