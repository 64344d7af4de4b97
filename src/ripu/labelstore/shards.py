"""The parts of a round that the ranks of a job write, and their merging."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ripu.io.writing import AtomicFile
from ripu.labelstore.answers import Squares, check_agrees, file_header, squares_of
from ripu.labelstore.encoding import decode_answers, decode_picks, encode_answers, encode_picks
from ripu.labelstore.errors import OverBudgetError, RoundConflictError, ShardMissingError
from ripu.labelstore.files import RecordFile, RecordWriter, StoreFile
from ripu.labelstore.log import RoundEvent
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import (
    ImageAnswers,
    ImagePicks,
    Pixels,
    Round,
    check_answers,
    check_disjoint,
    check_picks,
    content_digest,
    regions_of,
)


def write_shard(store: LabelReader, spec: Round, rank: int, records: Iterable[ImagePicks | ImageAnswers]) -> None:
    """Check and write one rank's records; see :meth:`ripu.labelstore.LabelStore.write_shard`."""
    squares: dict[int, Squares | None] = {}
    done: set[tuple[type, int]] = set()
    with StoreFile(store.path / "picks") as picks_file, StoreFile(store.path / "answers") as answers_file:
        picks_out = RecordWriter(picks_file, file_header(store, "picks", spec))
        answers_out = RecordWriter(answers_file, file_header(store, "answers"))
        for record in records:
            number = store.number(record.image_id)
            if (type(record), number) in done:
                raise RoundConflictError(
                    f"round {spec.index}: image {record.image_id!r} has two records of the same kind; give only one"
                )
            done.add((type(record), number))
            if isinstance(record, ImagePicks):
                checked = _check_record(store, record, spec)
                squares[number] = squares_of([(spec, checked)])
                picks_out.add(number, encode_picks(checked))
            else:
                image = store.images[number]
                pixels = check_answers(record, len(store.class_names), image)
                check_agrees(store, image, pixels)
                answers_out.add(number, encode_answers(*pixels, image, squares.get(number)))
        picks_out.finish("shard")
        answers_out.finish("shard")
        # Answers first: if there are picks, the shard is complete.
        answers_file.publish(_shard_name(spec, rank, "answers"))
        picks_file.publish(_shard_name(spec, rank, "picks"))


class Shards:
    """The shards of a round, opened by rank 0 to be merged."""

    def __init__(self, store: LabelReader, spec: Round, world_size: int) -> None:
        """Open the shards of all ranks.

        Raises:
            ShardMissingError: A rank has written none.
            RoundConflictError: A shard was written for another round or store.
        """
        self._store = store
        self._spec = spec
        self._picks = [self._open(rank, "picks") for rank in range(world_size)]
        self._answers = [self._open(rank, "answers") for rank in range(world_size)]
        self.squares: dict[int, Squares | None] = {}

    def merge_picks(self, file: AtomicFile) -> RoundEvent:
        """Write the picks of all ranks, images ascending, into a file that the caller publishes.

        Raises:
            RoundConflictError: Two ranks bring different picks for an image.
            RevealedTwiceError, OverBudgetError: An invariant would break.
        """
        spec = self._spec
        content = content_digest(spec)
        out = RecordWriter(file, file_header(self._store, "picks", spec))
        for number in sorted({number for shard in self._picks for number in shard.images}):
            payloads = _payloads(self._picks, number)
            image_id = self._store.images[number].image_id
            if len(set(payloads)) > 1:
                raise RoundConflictError(
                    f"round {spec.index}: two ranks bring different picks for image {image_id!r}; "
                    "give each image to one rank"
                )
            record = _check_record(self._store, decode_picks(payloads[0], image_id), spec)
            self.squares[number] = squares_of([(spec, record)])
            content.update(number.to_bytes(4, "little") + hashlib.sha256(payloads[0]).digest())
            out.add(number, payloads[0])
        return RoundEvent(spec, content.hexdigest(), out.finish(f"round-{spec.index:03d}"))

    def answers(self) -> Iterator[tuple[int, list[Pixels]]]:
        """Yield the answers in the shards and the held ones that the round asks for: image by image, ascending."""
        store = self._store
        for number in sorted({number for shard in (*self._picks, *self._answers) for number in shard.images}):
            image = store.images[number]
            parts = [decode_answers(payload, image) for payload in _payloads(self._answers, number)]
            for payload in _payloads(self._picks, number)[:1] if store.has_held(image.image_id) else ():
                asked = regions_of(decode_picks(payload, image.image_id), self._spec, image).indices
                labels, is_known = store.answered(image.image_id, asked)
                is_held = is_known & ~store.is_committed(image.image_id, asked)
                if is_held.any():
                    parts.append((asked[is_held], labels[is_held]))
            if parts:
                yield number, parts

    def remove(self) -> None:
        """Remove the files of a round that is committed; what stays behind goes when a writer opens the store."""
        for shard in (*self._picks, *self._answers):
            with contextlib.suppress(OSError):
                shard.path.unlink()

    def _open(self, rank: int, kind: str) -> RecordFile:
        path: Path = self._store.path / _shard_name(self._spec, rank, kind)
        if not path.exists():
            raise ShardMissingError(
                f"{path}: rank {rank} has not written its part of round {self._spec.index}; wait for it"
            )
        shard = RecordFile(path)
        if shard.header != file_header(self._store, kind, self._spec if kind == "picks" else None):
            raise RoundConflictError(
                f"{path}: written for another round or store; begin_round with the same values on all ranks"
            )
        return shard


def _shard_name(spec: Round, rank: int, kind: str) -> str:
    return f"shard-{spec.index:03d}-{rank:05d}-{kind}.dat"


def _payloads(files: list[RecordFile], number: int) -> list[bytes]:
    """Return the records of an image in several files."""
    return [payload for file in files if (payload := file.read(number)) is not None]


def _check_record(store: LabelReader, record: ImagePicks, spec: Round) -> ImagePicks:
    """Check every invariant of a record: form, budget, plan, and nothing asked for twice."""
    image = store.image(record.image_id)
    checked = check_picks(record, spec, image)
    where = f"round {spec.index}, image {image.image_id!r}"
    planned = store.planned_picks
    # Images that share a budget, and regions of sizes of their own, have no plan for each image.
    if planned is not None and checked.regions is None and "budget_per" not in spec.info and len(checked.picks):
        spent = sum(len(store.picks(image.image_id, earlier).picks) for earlier in range(spec.index))
        if spent + len(checked.picks) > planned:
            raise OverBudgetError(
                f"{where}: {len(checked.picks)} picks after {spent} in earlier rounds are more than the run planned "
                f"for an image (planned_picks={planned})"
            )
    asked = store.asked_mask(image.image_id, spec.index).reshape(-1)
    check_disjoint(regions_of(checked, spec, image).indices, asked, where, image.width)
    return checked
