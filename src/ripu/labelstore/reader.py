"""Reading a label store: what is asked, answered, revealed and suppressed, as of any round."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripu.labelstore.encoding import decode_answers, decode_picks
from ripu.labelstore.errors import (
    BadLabelError,
    CorruptStoreError,
    RoundOrderError,
    StoreMissingError,
    UnknownImageError,
)
from ripu.labelstore.files import FileEntry, RecordFile, records_of
from ripu.labelstore.log import MANIFEST_FILE, Header, Log, RoundEvent, held_files, read_header, read_log
from ripu.labelstore.records import (
    VOID,
    ImagePicks,
    IntArray,
    LabelArray,
    Pixels,
    Regions,
    Round,
    TargetImage,
    no_picks,
    regions_of,
)

NO_ROUND = 255
"""In :meth:`LabelReader.revealed_round`: no round revealed this pixel."""

BEFORE = 254
"""In :meth:`LabelReader.revealed_round`: revealed before the run began, by the labels that it started with."""

_UNANSWERED = 254


class LabelReader:
    """The reading half of a label store.

    It keeps no open file and may be pickled or forked into data loader workers. Every call checks if the manifest was
    replaced and then reads from one manifest only, so a round is seen whole or not at all. If a method takes
    ``num_rounds``, it reads as of a point in the run: rounds with an index below it count, and answers committed before
    the next round. None counts all.

    Methods raise :class:`UnknownImageError` for an ``image_id`` that the store was created without,
    :class:`CorruptStoreError` for damage, and :class:`RoundOrderError` if fewer rounds are committed than requested.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the store in a folder such as ``RUN/labels``; :class:`StoreMissingError` if it has none."""
        self.path = Path(path)
        if not (self.path / MANIFEST_FILE).exists():
            raise StoreMissingError(f"{self.path}: no label store here ({MANIFEST_FILE} is missing); check the path")
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._forget()

    def _forget(self) -> None:
        self._header: Header | None = None
        self._numbers: dict[str, int] = {}
        self._log = Log(())
        self._rounds: tuple[RoundEvent, ...] = ()
        self._signature: tuple[int, int, int] | None = None
        self._forget_files()

    def _forget_files(self) -> None:
        self._files: dict[str, RecordFile] = {}
        self._answer_files: list[RecordFile] = []  # by position in the log
        # One entry for each record in them: the number of its image, ascending, and the position of the file.
        self._answered = np.zeros((2, 0), np.int64)
        self._held: list[RecordFile] | None = None

    @property
    def header(self) -> Header:
        """Images, classes and metadata, from ``store.json``."""
        if self._header is None:
            self._header = read_header(self.path)
            self._numbers = {image.image_id: number for number, image in enumerate(self._header.images)}
        return self._header

    @property
    def images(self) -> tuple[TargetImage, ...]:
        """The target images in the order of creation."""
        return self.header.images

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in train-id order."""
        return self.header.class_names

    @property
    def planned_picks(self) -> int | None:
        """Picks per image over all rounds that the run plans to spend."""
        return self.header.planned_picks

    def number(self, image_id: str) -> int:
        """Return the number of an image: its position in :attr:`images`."""
        header = self.header
        number = self._numbers.get(image_id)
        if number is None:
            example = repr(header.images[0].image_id) if header.images else "none"
            raise UnknownImageError(
                f"{self.path}: no image {image_id!r} among the {len(header.images)} of the store (the first is "
                f"{example}); the data set and the store have to come from the same list"
            )
        return number

    def image(self, image_id: str) -> TargetImage:
        """Return the image of an id."""
        return self.images[self.number(image_id)]

    @property
    def log(self) -> Log:
        """The manifest as it is on disk now."""
        self._refresh()
        return self._log

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The committed rounds that are not undone, ascending by index."""
        return self.rounds_as_of(None)

    def rounds_as_of(self, num_rounds: int | None) -> tuple[Round, ...]:
        """Return the first ``num_rounds`` rounds, None for all."""
        return tuple(event.spec for event in self._as_of(num_rounds))

    @property
    def num_rounds(self) -> int:
        """Number of committed rounds; also the index of the next one."""
        self._refresh()
        return len(self._rounds)

    def await_rounds(self, num_rounds: int, seconds: float = 180.0) -> None:
        """Wait for rounds that another machine has committed: a network file system shows them some time later.

        NFS caches a folder for 60 seconds unless it is told otherwise.

        Raises:
            RoundOrderError: They do not show up within ``seconds``.
        """
        until = time.monotonic() + seconds
        while self.num_rounds < num_rounds:
            if time.monotonic() > until:
                raise RoundOrderError(
                    f"{self.path}: {num_rounds} rounds are committed, but this machine ({platform.node()}) sees "
                    f"{self.num_rounds} after {seconds:g} s; all machines of a job need the same folder: name one that "
                    "they share (paths.output_dir)"
                )
            time.sleep(0.5)
            with open(self.path / MANIFEST_FILE, "rb"):  # opening asks the server, a stat does not
                pass

    def await_answers(self, num_batches: int, seconds: float = 180.0) -> None:
        """Wait for batches of answers to show up, as :meth:`await_rounds` does for rounds.

        Raises:
            RoundOrderError: They do not show up in that time.
        """
        until = time.monotonic() + seconds
        while len(self.log.answers) < num_batches:
            if time.monotonic() > until:
                raise RoundOrderError(
                    f"{self.path}: answers are committed that this machine ({platform.node()}) does not see after "
                    f"{seconds:g} s; all machines of a job need the same folder: name one that they share "
                    "(paths.output_dir)"
                )
            time.sleep(0.5)
            with open(self.path / MANIFEST_FILE, "rb"):
                pass

    @property
    def carried(self) -> tuple[Round, ...]:
        """The rounds of other runs and folders of masks that the run started with, under their own numbers.

        Everything below counts them as asked before round 0, whatever ``num_rounds`` is.
        """
        return tuple(event.spec for event in self.log.carried)

    def picks(self, image_id: str, round_index: int) -> ImagePicks:
        """Return what one round picked in an image, in picking order."""
        return self._picks(self.number(image_id), self._round(round_index))

    def picks_as_of(self, image_id: str, num_rounds: int | None = None) -> list[tuple[Round, ImagePicks]]:
        """Return what was asked about an image, before the run began and then by the first rounds."""
        number = self.number(image_id)
        return [(event.spec, self._picks(number, event)) for event in self._events(num_rounds)]

    def asked(self, image_id: str, round_index: int) -> Regions:
        """Return the pixels that each pick of a round asks about, squares written out."""
        return self._regions(self.number(image_id), self._round(round_index))

    def asked_mask(
        self, image_id: str, num_rounds: int | None = None, *, with_carried: bool = True
    ) -> NDArray[np.bool_]:
        """Return the pixels asked about, answered or not, (H, W) bool; ``with_carried``: before the run began, too."""
        number, image = self._numbered(image_id)
        mask = np.zeros(image.height * image.width, dtype=np.bool_)
        for event in self._events(num_rounds) if with_carried else self._as_of(num_rounds):
            mask[self._regions(number, event).indices] = True
        return mask.reshape(image.height, image.width)

    def suppressed(self, image_id: str, num_rounds: int | None = None) -> NDArray[np.bool_]:
        """Return the pixels that cannot be picked any more: (H, W) bool.

        They were asked about, or lie within a round's ``suppress_radius`` (Chebyshev distance, the radius included) of
        one of its picks.
        """
        mask = self.asked_mask(image_id, num_rounds)
        for spec, record in self.picks_as_of(image_id, num_rounds):
            radius = spec.suppress_radius
            for row, col in record.picks.tolist():
                mask[max(row - radius, 0) : row + radius + 1, max(col - radius, 0) : col + radius + 1] = True
        return mask

    def answers(self, image_id: str) -> Pixels:
        """Return every answer for an image, queried or not: (M,) int64 ascending flat indices, (M,) uint8 labels."""
        known = self._answer_map(self.number(image_id), with_held=True)
        indices = np.flatnonzero(known != _UNANSWERED)
        return indices.astype(np.int64), known[indices]

    def answered(self, image_id: str, indices: ArrayLike) -> tuple[LabelArray, NDArray[np.bool_]]:
        """Look up answers by integer flat indices (``row * W + column``): what is known need not be asked again.

        Returns:
            uint8 labels (255: void or not known) and bool, True if the pixel was answered, in the shape of ``indices``.

        Raises:
            BadLabelError: An index lies outside the image.
        """
        number, image = self._numbered(image_id)
        flat = np.asarray(indices)
        flat = flat.astype(np.int64) if flat.size == 0 else flat
        is_inside = flat.size == 0 or 0 <= flat.min() <= flat.max() < image.height * image.width
        if flat.dtype.kind not in "iu" or not is_inside:
            raise BadLabelError(
                f"image {image_id!r}: flat indices have to be integers inside the {image.height} x {image.width} label"
            )
        labels = self._answer_map(number, with_held=True)[flat]
        known = labels != _UNANSWERED
        labels[~known] = VOID
        return labels, known

    def is_committed(self, image_id: str, indices: IntArray) -> NDArray[np.bool_]:
        """Return (M,) bool: flat indices with a committed answer; :meth:`answered` also knows answers that are held."""
        is_known: NDArray[np.bool_] = self._answer_map(self.number(image_id))[indices] != _UNANSWERED
        return is_known

    def look_again(self) -> None:
        """Look for held answers again; files of them came or went."""
        self._held = None

    def has_held(self, image_id: str) -> bool:
        """Return whether answers for an image are held."""
        number = self.number(image_id)
        self._refresh()
        return bool(self._held_answers(number))

    def unanswered(self, image_id: str, num_rounds: int | None = None) -> IntArray:
        """Return the pixels that await an answer: (M,) int64 flat indices in order of round, pick and position."""
        number = self.number(image_id)
        known = self._answer_map(number, num_rounds)
        asked = [self._regions(number, event).indices for event in self._events(num_rounds)]
        indices = np.concatenate([np.zeros(0, np.int64), *asked])
        missing: IntArray = indices[known[indices] == _UNANSWERED]
        return missing

    def revealed_label(self, image_id: str, num_rounds: int | None = None) -> LabelArray:
        """Return the label as far as it is revealed, that is, queried by a round and answered.

        (H, W) uint8 class indices; 255 if the pixel is not revealed or its answer is void.
        """
        number, image = self._numbered(image_id)
        rounds = self._events(num_rounds)
        label = np.full(image.height * image.width, VOID, dtype=np.uint8)
        if rounds:
            # One map only, touching it is what costs: write every answer, keep those that were asked for.
            batches = self._committed_answers(number, num_rounds)
            asked = np.concatenate([self._regions(number, event).indices for event in rounds])
            for indices, labels in batches:
                label[indices] = labels
            revealed = label[asked]
            for indices, _ in batches:
                label[indices] = VOID
            label[asked] = revealed
        return label.reshape(image.height, image.width)

    def revealed_round(self, image_id: str, num_rounds: int | None = None) -> LabelArray:
        """Return the round that revealed each pixel; tells an answered void from a pixel that is not revealed.

        (H, W) uint8 round indices; 255 if the pixel is not revealed, 254 if it was before the run began.
        """
        number, image = self._numbered(image_id)
        revealed = np.full(image.height * image.width, NO_ROUND, dtype=np.uint8)
        if rounds := self._events(num_rounds):
            known = self._answer_map(number, num_rounds)
            for event in rounds:
                indices = self._regions(number, event).indices
                index = BEFORE if event.is_carried else event.spec.index
                revealed[indices[known[indices] != _UNANSWERED]] = index
        return revealed.reshape(image.height, image.width)

    def _numbered(self, image_id: str) -> tuple[int, TargetImage]:
        number = self.number(image_id)
        return number, self.images[number]

    def _refresh(self) -> None:
        try:
            status = os.stat(self.path / MANIFEST_FILE)
        except FileNotFoundError as error:
            raise StoreMissingError(f"{self.path}: no label store here ({MANIFEST_FILE} is missing)") from error
        # The manifest only grows: another size, if nothing else, tells a new one.
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        if signature != self._signature:
            log = read_log(self.path, self.header.sha256)
            if log.events[: len(self._log.events)] != self._log.events:
                self._forget_files()
            self._log, self._rounds, self._signature = log, log.rounds, signature
            self.look_again()

    def _round(self, index: int) -> RoundEvent:
        self._refresh()
        if not 0 <= index < len(self._rounds):
            raise RoundOrderError(f"{self.path}: there is no round {index}, {len(self._rounds)} are committed")
        return self._rounds[index]

    def _as_of(self, num_rounds: int | None) -> tuple[RoundEvent, ...]:
        self._refresh()
        if num_rounds is not None and not 0 <= num_rounds <= len(self._rounds):
            raise RoundOrderError(
                f"{self.path}: asked to read as of {num_rounds} rounds, {len(self._rounds)} are committed; "
                "the checkpoint and the store are not from the same point of the run"
            )
        return self._rounds[:num_rounds]

    def _events(self, num_rounds: int | None) -> tuple[RoundEvent, ...]:
        """Return what was asked before the run began, and the first rounds."""
        rounds = self._as_of(num_rounds)
        return (*self._log.carried, *rounds)

    def _picks(self, number: int, event: RoundEvent) -> ImagePicks:
        payload = self._file(event.file).read(number)
        image_id = self.images[number].image_id
        return no_picks(image_id) if payload is None else decode_picks(payload, image_id)

    def _regions(self, number: int, event: RoundEvent) -> Regions:
        return regions_of(self._picks(number, event), event.spec, self.images[number])

    def _answer_map(self, number: int, num_rounds: int | None = None, *, with_held: bool = False) -> LabelArray:
        """Return the answer of each pixel, (H * W,) uint8, 254 for none."""
        self._refresh()
        image = self.images[number]
        known = np.full(image.height * image.width, _UNANSWERED, dtype=np.uint8)
        held = self._held_answers(number) if with_held else []
        for indices, labels in (*held, *self._committed_answers(number, num_rounds)):
            known[indices] = labels
        return known

    def _committed_answers(self, number: int, num_rounds: int | None = None) -> list[Pixels]:
        if new := [self._file(entry) for entry in self._log.answers[len(self._answer_files) :]]:
            orders = range(len(self._answer_files), len(self._answer_files) + len(new))
            parts = [
                np.stack([file.numbers, np.full_like(file.numbers, order)])
                for order, file in zip(orders, new, strict=True)
            ]
            joined = np.concatenate([self._answered, *parts], axis=1)
            self._answered = joined[:, np.argsort(joined[0], kind="stable")]
            self._answer_files += new
        end = len(self._answer_files)
        if num_rounds is not None and num_rounds < len(self._rounds):  # a late answer belongs to the phase that took it
            end = self._log.num_answers_before(self._rounds[num_rounds])
        first, last = np.searchsorted(self._answered[0], [number, number + 1]).tolist()
        files = [self._answer_files[order] for order in self._answered[1, first:last].tolist() if order < end]
        return [decode_answers(payload, self.images[number]) for payload in records_of(files, number)]

    def _held_answers(self, number: int) -> list[Pixels]:
        """Return the answers for an image that a crash kept from their commit and no live round asks for."""
        if self._held is None:
            found = []
            for path in held_files(self.path):
                try:
                    found.append(RecordFile(path))
                except CorruptStoreError:
                    if path.exists():  # otherwise it was committed since the folder was listed
                        raise
            self._held = found
        return [decode_answers(payload, self.images[number]) for payload in records_of(self._held, number)]

    def _file(self, entry: FileEntry) -> RecordFile:
        if entry.name not in self._files:
            self._files[entry.name] = RecordFile(self.path / entry.name, entry)
        return self._files[entry.name]
