"""The part of one rank in a round: candidates of its images, questions about them, and a shard of picks and answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition import ScoreMaps
from ripu.datasets.errors import Fault, SkippedFileError
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, Regions, Round, square_regions
from ripu.labelstore.cut import FOLDER as ANNOTATION_FOLDER
from ripu.labelstore.predictions import write_predictions
from ripu.selection.candidates import Candidates
from ripu.selection.forward import Source
from ripu.selection.oracles import Oracle
from ripu.selection.scoring import Scorer

_log = logging.getLogger(__name__)


class Watch(Protocol):
    """An observer of a few images of a round, e.g. for a report."""

    def wants(self, index: int) -> bool:
        """Return whether an image, by its position, is one of them."""

    def see(self, number: int, index: int, logits: Tensor, maps: ScoreMaps) -> None:
        """Receive logits (1, C, h, w) and maps (1, H, W) of an image in round ``number``, before the query."""


@dataclass
class RoundTally:
    """The work of one rank in a round.

    Attributes:
        images: Images scored.
        picks: Places picked.
        short: Images with fewer picks than the budget, by image id.
        unreadable: Unreadable files; nothing was asked about their images.
        impurity: Sum of the region impurity over picks; None if the score has none.
        uncertainty: Sum of the prediction uncertainty over picks; None if the score has none.
    """

    images: int = 0
    picks: int = 0
    short: dict[str, int] = field(default_factory=dict)
    unreadable: list[Fault] = field(default_factory=list)
    impurity: float | None = None
    uncertainty: float | None = None


@dataclass
class RankPart:
    """The part of one rank in a round.

    Attributes:
        scorer: Finds the candidates, with the score of the round.
        oracle: Answers.
        suggests: Keep the network's labels for the people who answer; never in a round that is committed already.
        store: The label store.
        spec: The round.
        is_committed: It is committed already: compare the picks, and write nothing.
        rank: The rank.
        tally: Its work so far.
    """

    scorer: Scorer
    oracle: Oracle
    suggests: bool
    store: LabelStore
    spec: Round
    is_committed: bool
    rank: int
    tally: RoundTally = field(default_factory=RoundTally)
    _predicted: dict[int, NDArray[np.uint8]] = field(default_factory=dict, init=False)
    _asked_predictions: list[tuple[str, NDArray[np.uint8]]] = field(default_factory=list, init=False)

    def _pixels(self, offer: Candidates) -> NDArray[np.int64]:
        """Return the flat indices that candidates ask about, in their order."""
        scorer = self.scorer
        if offer.regions is not None:
            return offer.regions.indices
        if scorer.query.whole_image:
            return scorer.open_pixels(self.store, self.spec.index, offer.index) if len(offer) else np.zeros(0, np.int64)
        return square_regions(offer.places, scorer.query.reveal_radius, *scorer.label_sizes[offer.index]).indices

    def _labels_of(self, offer: Candidates, logits: Tensor) -> NDArray[np.uint8]:
        """Return the network's labels of the pixels that candidates ask about, nearest in the logits (1, C, h, w).

        As in up-sampling, the corner pixels of both lie on one another.
        """
        size = self.scorer.label_sizes[offer.index]
        places = np.divmod(self._pixels(offer), size[1])
        scales = ((own - 1) / max(side - 1, 1) for own, side in zip(logits.shape[2:], size, strict=True))
        at = tuple(torch.from_numpy(np.rint(place * scale)).long() for place, scale in zip(places, scales, strict=True))
        labels: NDArray[np.uint8] = logits[0].argmax(dim=0).cpu()[at].to(torch.uint8).numpy()
        return labels

    def candidates(
        self, source: Source, progress: Callable[[int, int], None], watch: Watch | None
    ) -> Iterator[Candidates]:
        """Yield the candidates of each image; reading starts with the first one requested."""
        scorer, tally, total = self.scorer, self.tally, len(source.images)
        for batch, outputs in source.batches():
            for fault in batch.get("fault", ()):
                tally.unreadable.append(fault)
                tally.images += 1
                progress(tally.images, total)
            for item, (index, output) in enumerate(zip(batch["index"], outputs, strict=True)):
                image = batch["image"][item] if scorer.needs_image else None
                seen = (output.logits, image, output.features)
                offer = scorer.candidates(self.store, self.spec, int(index), *seen)
                if self.suggests:
                    self._predicted[offer.index] = self._labels_of(offer, output.logits)
                if watch is not None and watch.wants(offer.index):
                    number = self.spec.index
                    watch.see(number, offer.index, output.logits, scorer.maps(number, offer.index, *seen))
                yield offer
                tally.images += 1
                progress(tally.images, total)

    def write(self, offers: Iterator[Candidates]) -> None:
        """Ask about candidates and write picks and answers; for a committed round, only compare the picks."""
        if not self.is_committed:
            records = (record for offer in offers for record in self._ask(offer, self.oracle))
            self.store.write_shard(self.spec, self.rank, records)
            if self.suggests:
                folder = self.store.path.parent / ANNOTATION_FOLDER
                write_predictions(folder, self.store, self.spec, self.rank, self._asked_predictions)
            return
        differing = 0
        for offer in offers:
            for record in self._ask(offer, None):
                if isinstance(record, ImagePicks):
                    committed = self.store.picks(record.image_id, self.spec.index).picks
                    differing += not np.array_equal(committed, np.asarray(record.picks))
        if differing:
            _log.warning(
                "round %d is committed, but this device now computes other picks on %d images than it did then; the "
                "committed picks stand, and nothing is asked again",
                self.spec.index + 1,
                differing,
            )

    def _ask(self, offer: Candidates, oracle: Oracle | None) -> Iterator[ImagePicks | ImageAnswers]:
        """Yield picks and answers of an image; nothing if its answers cannot be read."""
        scorer = self.scorer
        image_id, (height, width) = scorer.image_ids[offer.index], scorer.label_sizes[offer.index]
        pixels = self._pixels(offer)
        if offer.index in self._predicted:  # a cut keeps the first few
            self._asked_predictions.append((image_id, self._predicted.pop(offer.index)[: len(pixels)]))
        labels, is_known = self.store.answered(image_id, pixels)
        missing = pixels[~is_known]
        answer = None
        if len(missing) and oracle is not None:
            try:
                answer = oracle.answer(image_id, missing // width, missing % width)
            except SkippedFileError as skipped:
                self.tally.unreadable.append(skipped.fault)
                return
        size = (height, width)
        tally, budget = self.tally, scorer.query.picks_per_round(size, scorer.fed_size(size))
        if not scorer.is_fixed and not scorer.has_shared_budget and len(offer) < budget:
            tally.short[image_id] = len(offer)
        tally.picks += len(offer)
        if offer.impurity is not None:
            tally.impurity = (tally.impurity or 0.0) + float(torch.from_numpy(offer.impurity).sum())
        if offer.uncertainty is not None:
            tally.uncertainty = (tally.uncertainty or 0.0) + float(torch.from_numpy(offer.uncertainty).sum())
        regions = Regions.from_sets([pixels][: len(offer)]) if scorer.query.whole_image else offer.regions
        yield ImagePicks(image_id, offer.places, offer.scores, regions)
        if answer is not None:
            labels = labels.copy()
            labels[~is_known] = answer
        elif len(missing):  # not answered yet; known answers stay known
            pixels, labels = pixels[is_known], labels[is_known]
        if len(pixels):
            yield ImageAnswers(image_id, pixels, labels)
