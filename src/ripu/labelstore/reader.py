"""Reading a label store: what is asked, answered, revealed and suppressed, as of any round."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
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
from ripu.labelstore.files import FileEntry, RecordFile
from ripu.labelstore.log import (
    MANIFEST_FILE,
    CarriedEvent,
    Header,
    Log,
    RoundEvent,
    held_files,
    read_header,
    read_log,
)
from ripu.labelstore.records import (
    VOID,
    ImagePicks,
    IntArray,
    LabelArray,
    Regions,
    Round,
    TargetImage,
    regions_of,
)

NO_ROUND = 255
"""In :meth:`LabelReader.revealed_round`: no round revealed this pixel."""

BEFORE = 254
"""In :meth:`LabelReader.revealed_round`: revealed before the run began, by what it took over."""

_UNANSWERED = 254


class LabelReader:
    """The reading half of a label store.

    Holds no open file and may be pickled or forked into data loader workers. Every call looks whether the manifest
    was replaced and then reads from one manifest alone, so a round is seen whole or not at all; give ``num_rounds``
    to read as of a point in the run, whatever was committed since.

    Args:
        path: The folder of the store, e.g. ``RUN/labels``.

    Raises:
        StoreMissingError: If the folder holds no store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / MANIFEST_FILE).exists():
            raise StoreMissingError(f"{self.path}: no label store here ({MANIFEST_FILE} is missing); check the path")
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._forget()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _forget(self) -> None:
        self._header: Header | None = None
        self._numbers: dict[str, int] = {}
        self._log = Log(())
        self._rounds: tuple[RoundEvent, ...] = ()
        self._signature: tuple[int, int, int] | None = None
        self._files: dict[str, RecordFile] = {}
        self._answer_files: dict[int, list[RecordFile]] = {}
        self._num_indexed = 0
        self._held: list[RecordFile] | None = None

    # ---- what the store was created with

    @property
    def header(self) -> Header:
        """Images, classes and metadata.

        Raises:
            CorruptStoreError: If ``store.json`` is damaged.
        """
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
    def metadata(self) -> Mapping[str, Any]:
        """The free metadata given at creation."""
        return self.header.metadata

    @property
    def planned_picks(self) -> int | None:
        """Picks per image over all rounds that the run means to spend."""
        return self.header.planned_picks

    def image(self, image_id: str) -> TargetImage:
        """The image of an id.

        Raises:
            UnknownImageError: If the store was created without it.
        """
        return self.images[self._number(image_id)]

    # ---- rounds

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
        """The first ``num_rounds`` rounds, None for all.

        Raises:
            RoundOrderError: If fewer rounds are committed.
        """
        return tuple(event.spec for event in self._as_of(num_rounds))

    @property
    def num_rounds(self) -> int:
        """Number of committed rounds; also the index of the next one."""
        self._refresh()
        return len(self._rounds)

    def await_rounds(self, num_rounds: int, seconds: float = 180.0) -> None:
        """Wait until this many rounds are visible: a network file system shows other machines' writes with a delay.

        Args:
            num_rounds: Rounds that another process says are committed.
            seconds: How long to look; NFS keeps what it knows of a folder for 60 seconds if nothing else is set.

        Raises:
            RoundOrderError: They are not seen in that time.
        """
        until = time.monotonic() + seconds
        while self.num_rounds < num_rounds:
            if time.monotonic() > until:
                raise RoundOrderError(
                    f"{self.path}: {num_rounds} rounds are committed, and this machine ({platform.node()}) sees "
                    f"{self.num_rounds} after {seconds:g} s; all machines of a job need the same folder: name one that "
                    "they share (paths.output_dir)"
                )
            time.sleep(0.5)
            with open(self.path / MANIFEST_FILE, "rb"):  # opening asks the server, which looking does not
                pass

    @property
    def carried(self) -> tuple[Round, ...]:
        """What was asked before the run began: rounds of other runs and folders of masks, under their own numbers.

        Everything below counts it as asked before round 0, whatever ``num_rounds`` is.
        """
        return tuple(event.spec for event in self.log.carried)

    def carried_picks(self, image_id: str) -> list[tuple[Round, ImagePicks]]:
        """What was asked of an image before the run began; raises as :meth:`picks`."""
        number = self._number(image_id)
        return [(event.spec, self._picks(number, event)) for event in self.log.carried]

    def picks(self, image_id: str, round_index: int) -> ImagePicks:
        """What one round picked in an image, in picking order; no picks where it has no record of the image.

        Raises:
            RoundOrderError: If there is no such round.
            UnknownImageError: If the store was created without the image.
            CorruptStoreError: If the record is damaged.
        """
        return self._picks(self._number(image_id), self._round(round_index))

    def asked(self, image_id: str, round_index: int) -> Regions:
        """The pixels that each pick of a round asks for, squares written out; raises as :meth:`picks`."""
        number = self._number(image_id)
        return self._regions(number, self._round(round_index))

    def asked_mask(
        self, image_id: str, num_rounds: int | None = None, *, with_carried: bool = True
    ) -> NDArray[np.bool_]:
        """Pixels that were asked for, answered or not.

        Args:
            image_id: The image.
            num_rounds: Only rounds with an index below this; None for all.
            with_carried: Whether what was asked before the run began counts.

        Returns:
            (H, W) bool.

        Raises:
            RoundOrderError: If fewer rounds are committed than ``num_rounds``.
        """
        number = self._number(image_id)
        image = self.images[number]
        mask = np.zeros(image.height * image.width, dtype=np.bool_)
        for event in self._events(num_rounds) if with_carried else self._as_of(num_rounds):
            mask[self._regions(number, event).indices] = True
        return mask.reshape(image.height, image.width)

    def suppressed(self, image_id: str, num_rounds: int | None = None) -> NDArray[np.bool_]:
        """Pixels that cannot be picked any more: asked for already, or within a round's ``suppress_radius`` (Chebyshev
        distance, the radius itself included) of one of its picks.

        Args:
            image_id: The image.
            num_rounds: Only rounds with an index below this; None for all.

        Returns:
            (H, W) bool.

        Raises:
            RoundOrderError: If fewer rounds are committed than ``num_rounds``.
        """
        mask = self.asked_mask(image_id, num_rounds)
        number = self._number(image_id)
        for event in self._events(num_rounds):
            radius = event.spec.suppress_radius
            for row, col in self._picks(number, event).picks.tolist():
                mask[max(row - radius, 0) : row + radius + 1, max(col - radius, 0) : col + radius + 1] = True
        return mask

    # ---- answers

    def answers(self, image_id: str) -> tuple[IntArray, LabelArray]:
        """Every answer for an image, also those to rounds that were undone or not committed.

        Returns:
            (M,) int64 ascending flat indices and (M,) uint8 labels, 255 for void.
        """
        known = self._answer_map(self._number(image_id), with_held=True)
        indices = np.flatnonzero(known != _UNANSWERED)
        return indices.astype(np.int64), known[indices]

    def answered(self, image_id: str, indices: ArrayLike) -> tuple[LabelArray, NDArray[np.bool_]]:
        """Look up answers: what is known need not be asked again.

        Args:
            image_id: The image.
            indices: Integer flat indices (``row * W + column``) of any shape.

        Returns:
            uint8 labels, 255 for void and where nothing is known, and bool, True where the pixel was answered; both
            of the shape of ``indices``.

        Raises:
            BadLabelError: If an index lies outside the image.
        """
        number = self._number(image_id)
        image = self.images[number]
        flat = np.asarray(indices)
        flat = flat.astype(np.int64) if flat.size == 0 else flat
        if flat.dtype.kind not in "iu" or (
            flat.size and not 0 <= flat.min() <= flat.max() < image.height * image.width
        ):
            raise BadLabelError(
                f"image {image_id!r}: flat indices have to be integers inside the {image.height} x {image.width} label"
            )
        labels = self._answer_map(number, with_held=True)[flat]
        known = labels != _UNANSWERED
        labels[~known] = VOID
        return labels, known

    def is_committed(self, image_id: str, indices: IntArray) -> NDArray[np.bool_]:
        """Whether pixels have an answer in the manifest's files; :meth:`answered` also knows answers that are held.

        Args:
            image_id: The image.
            indices: (M,) int64 flat indices inside the image.

        Returns:
            (M,) bool.
        """
        is_known: NDArray[np.bool_] = self._answer_map(self._number(image_id))[indices] != _UNANSWERED
        return is_known

    def look_again(self) -> None:
        """Forget which answers are held; files of them came or went."""
        self._held = None

    def unanswered(self, image_id: str, num_rounds: int | None = None) -> IntArray:
        """Pixels that were asked for and have no answer yet.

        Returns:
            (M,) int64 flat indices in order of round, pick and position.
        """
        number = self._number(image_id)
        known = self._answer_map(number)
        asked = [self._regions(number, event).indices for event in self._events(num_rounds)]
        indices = np.concatenate([np.zeros(0, np.int64), *asked])
        missing: IntArray = indices[known[indices] == _UNANSWERED]
        return missing

    # ---- asked and answered: revealed

    def revealed_label(self, image_id: str, num_rounds: int | None = None) -> LabelArray:
        """The label as far as it is revealed: asked for by a round and answered.

        Args:
            image_id: The image.
            num_rounds: Only rounds with an index below this; None for all.

        Returns:
            (H, W) uint8 class indices; 255 where the pixel is not revealed or its answer is void.

        Raises:
            RoundOrderError: If fewer rounds are committed than ``num_rounds``.
            UnknownImageError: If the store was created without the image.
            CorruptStoreError: If a record of this image is damaged.
        """
        number = self._number(image_id)
        image = self.images[number]
        rounds = self._events(num_rounds)
        label = np.full(image.height * image.width, VOID, dtype=np.uint8)
        if rounds:
            # One map only, touching it is what costs: write every answer, keep those that were asked for.
            batches = self._answer_batches(number)
            asked = np.concatenate([self._regions(number, event).indices for event in rounds])
            for indices, labels in batches:
                label[indices] = labels
            revealed = label[asked]
            for indices, _ in batches:
                label[indices] = VOID
            label[asked] = revealed
        return label.reshape(image.height, image.width)

    def revealed_round(self, image_id: str, num_rounds: int | None = None) -> LabelArray:
        """The round that revealed each pixel; tells an answered void from a pixel that is not revealed.

        Args:
            image_id: The image.
            num_rounds: Only rounds with an index below this; None for all.

        Returns:
            (H, W) uint8 round indices; 255 where the pixel is not revealed, 254 where it was before the run began.

        Raises:
            RoundOrderError: If fewer rounds are committed than ``num_rounds``.
        """
        number = self._number(image_id)
        image = self.images[number]
        rounds = self._events(num_rounds)
        revealed = np.full(image.height * image.width, NO_ROUND, dtype=np.uint8)
        if rounds:
            known = self._answer_map(number)
            for event in rounds:
                indices = self._regions(number, event).indices
                by = BEFORE if isinstance(event, CarriedEvent) else event.spec.index
                revealed[indices[known[indices] != _UNANSWERED]] = by
        return revealed.reshape(image.height, image.width)

    # ---- inside

    def _number(self, image_id: str) -> int:
        header = self.header
        number = self._numbers.get(image_id)
        if number is None:
            example = repr(header.images[0].image_id) if header.images else "none"
            raise UnknownImageError(
                f"{self.path}: no image {image_id!r} among the {len(header.images)} of the store (the first is "
                f"{example}); the data set and the store have to come from the same list"
            )
        return number

    def _refresh(self) -> None:
        path = self.path / MANIFEST_FILE
        try:
            status = os.stat(path)
        except FileNotFoundError as error:
            raise StoreMissingError(f"{self.path}: no label store here ({MANIFEST_FILE} is missing)") from error
        # The manifest only grows: another size, if nothing else, tells a new one.
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        if signature != self._signature:
            log = read_log(self.path, self.header.sha256)
            if log.events[: len(self._log.events)] != self._log.events:
                self._files, self._answer_files, self._num_indexed = {}, {}, 0
            self._log, self._rounds, self._signature = log, log.rounds, signature
            self.look_again()

    def _round(self, index: int) -> RoundEvent:
        self._refresh()
        if not 0 <= index < len(self._rounds):
            raise RoundOrderError(f"{self.path}: there is no round {index}, {len(self._rounds)} are committed")
        return self._rounds[index]

    def _as_of(self, num_rounds: int | None) -> tuple[RoundEvent, ...]:
        self._refresh()
        if num_rounds is None:
            return self._rounds
        if not 0 <= num_rounds <= len(self._rounds):
            raise RoundOrderError(
                f"{self.path}: asked to read as of {num_rounds} rounds, {len(self._rounds)} are committed; "
                "the checkpoint and the store are not from the same point of the run"
            )
        return self._rounds[:num_rounds]

    def _events(self, num_rounds: int | None) -> tuple[RoundEvent | CarriedEvent, ...]:
        """What was asked before the run began, and the first rounds."""
        rounds = self._as_of(num_rounds)
        return (*self._log.carried, *rounds)

    def _file(self, entry: FileEntry) -> RecordFile:
        file = self._files.get(entry.name)
        if file is None:
            file = self._files[entry.name] = RecordFile(self.path / entry.name, entry)
        return file

    def _picks(self, number: int, event: RoundEvent | CarriedEvent) -> ImagePicks:
        payload = self._file(event.file).read(number)
        image_id = self.images[number].image_id
        if payload is None:
            return ImagePicks(image_id, np.zeros((0, 2), dtype=np.int64))
        return decode_picks(payload, image_id)

    def _regions(self, number: int, event: RoundEvent | CarriedEvent) -> Regions:
        return regions_of(self._picks(number, event), event.spec, self.images[number])

    def _answer_map(self, number: int, *, with_held: bool = False) -> LabelArray:
        """(H * W,) uint8: the answer of each pixel, 254 where there is none."""
        image = self.images[number]
        known = np.full(image.height * image.width, _UNANSWERED, dtype=np.uint8)
        for indices, labels in self._held_batches(number) if with_held else ():
            known[indices] = labels
        for indices, labels in self._answer_batches(number):
            known[indices] = labels
        return known

    def _held_batches(self, number: int) -> list[tuple[IntArray, LabelArray]]:
        """Answers that no live round asks for: those to a round that a crash kept from its commit."""
        self._refresh()
        if self._held is None:
            self._held = [file for path in held_files(self.path) if (file := _open_held(path))]
        payloads = [file.read(number) for file in self._held]
        return [decode_answers(payload, self.images[number]) for payload in payloads if payload is not None]

    def _answer_batches(self, number: int) -> list[tuple[IntArray, LabelArray]]:
        self._refresh()
        batches = self._log.answers
        for entry in batches[self._num_indexed :]:
            file = self._file(entry)
            for one in file.images:
                self._answer_files.setdefault(one, []).append(file)
            self._num_indexed += 1
        found = []
        for file in self._answer_files.get(number, ()):
            payload = file.read(number)
            assert payload is not None
            found.append(decode_answers(payload, self.images[number]))
        return found


def _open_held(path: Path) -> RecordFile | None:
    try:
        return RecordFile(path)
    except CorruptStoreError:
        if path.exists():
            raise
        return None  # committed since the folder was listed
