"""Labels from before a run began on their way into its store: rounds of another run, or a folder of masks.

Legend: (H, W) the label's full size.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.commits import file_header, merge, squares_of
from ripu.labelstore.encoding import encode_answers, encode_picks
from ripu.labelstore.errors import LabelStoreError
from ripu.labelstore.files import RecordWriter, StoreFile
from ripu.labelstore.log import MANIFEST_FILE, AnswersEvent, Event, RoundEvent, check_json
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import (
    ImageAnswers,
    ImagePicks,
    Pixels,
    Regions,
    Round,
    TargetImage,
    check_answers,
    check_disjoint,
    check_picks,
    content_digest,
    no_picks,
    regions_of,
)


@dataclass(frozen=True)
class Carried:
    """The labels that are carried over for one image."""

    picks: tuple[ImagePicks, ...]  # a record per carried round
    answers: ImageAnswers  # asked for or not


@dataclass(frozen=True)
class Mask:
    """A label that is known in part: (H, W) uint8 train ids, 255 for void, that count where ``known``, (H, W) bool."""

    known: NDArray[np.bool_]
    label: NDArray[np.uint8]


def carried_rounds(parent: LabelReader) -> tuple[Round, ...]:
    """Return the rounds of a store as another one carries them; ``info["from"]`` identifies the store."""
    origin = {
        "kind": "run",
        "store_sha256": parent.header.sha256,
        "manifest_sha256": hashlib.sha256((parent.path / MANIFEST_FILE).read_bytes()).hexdigest(),
    }
    own = (replace(spec, info={**spec.info, "from": origin}) for spec in parent.rounds)
    return (*parent.carried, *own)


def mask_round(index: int, origin: Mapping[str, Any]) -> Round:
    """Return the carried round for a folder of masks: one pick per image, which asks about all known pixels."""
    return Round(index, 0, 1, 0, 0, {"from": {"kind": "masks", **origin}})


def check_parent(parent: LabelReader, images: Sequence[TargetImage], class_names: Sequence[str]) -> None:
    """Check that everything that a store knows has its place in another run with these images and classes.

    Raises:
        LabelStoreError: Classes differ, or a labelled image is missing there or has another size.
    """
    if parent.class_names != tuple(class_names):
        raise LabelStoreError(
            f"{parent.path}: its {len(parent.class_names)} classes are not the {len(class_names)} of this run; labels "
            "can be carried over only between runs with the same classes"
        )
    sizes = {image.image_id: image for image in images}
    lost: list[str] = []
    resized: list[str] = []
    for image in parent.images:
        here = sizes.get(image.image_id)
        if here == image:
            continue
        if len(parent.answers(image.image_id)[0]) or parent.asked_mask(image.image_id).any():
            (lost if here is None else resized).append(image.image_id)
    if lost or resized:
        fault = "not among the target images of this run" if lost else "of another size in this run"
        raise LabelStoreError(
            f"{parent.path}: {len(lost or resized)} labelled images are {fault}: {(lost or resized)[:3]}; use the data "
            "that the other run used (more images than those are allowed)"
        )


def carried_images(
    images: Sequence[TargetImage],
    parent: LabelReader | None,
    masks: Mapping[str, Mask] | None,
    num_rounds: int | None = None,
) -> Iterator[Carried]:
    """Yield the records that each image carries over: :func:`carried_rounds`, then :func:`mask_round`.

    Pixels of a mask that the other run asked about are not asked about again.

    Args:
        images: The images of the run's store.
        parent: The store of another run, checked by :func:`check_parent`.
        masks: The mask of each image by its id.
        num_rounds: Only this many rounds of the other run, and answers to them; None for all rounds and all answers.

    Raises:
        LabelStoreError: A mask and an earlier answer contradict each other.
    """
    known_to_parent = {image.image_id for image in parent.images} if parent is not None else set()
    num_own = len(parent.rounds_as_of(num_rounds)) if parent is not None else 0  # it may continue in the meantime
    num_carried = len(parent.carried) if parent is not None else 0
    for image in images:
        records = [no_picks(image.image_id)] * (num_carried + num_own)
        answers: list[Pixels] = []
        asked = np.zeros((image.height, image.width), dtype=np.bool_)
        if parent is not None and image.image_id in known_to_parent:
            records = [record for _, record in parent.picks_as_of(image.image_id, num_own)]
            asked = parent.asked_mask(image.image_id, num_rounds)
            known, labels = parent.answers(image.image_id)
            is_wanted = asked.reshape(-1)[known] | (num_rounds is None)
            answers.append((known[is_wanted], labels[is_wanted]))
        if masks is not None:
            mask = masks[image.image_id]
            new = np.flatnonzero(mask.known & ~asked).astype(np.int64)
            place = np.stack(np.divmod(new[:1], image.width), axis=1)
            records.append(ImagePicks(image.image_id, place, regions=Regions.from_sets([new]) if len(new) else None))
            known = np.flatnonzero(mask.known).astype(np.int64)
            answers.append((known, mask.label.reshape(-1)[known]))
        yield Carried(tuple(records), ImageAnswers(image.image_id, *merge(answers, image)))


def write_carried(store: LabelReader, rounds: Sequence[Round], images: Iterable[Carried]) -> list[Event]:
    """Write the files of what is carried over; return the events to commit: answers, then rounds.

    See :meth:`ripu.labelstore.LabelStore.carry`.
    """
    for spec in rounds:
        check_json(spec.info, f"carried round {spec.index}: info")
    digests = [content_digest(spec) for spec in rounds]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(StoreFile(store.path / "picks")) for _ in rounds]
        outs = [
            RecordWriter(file, file_header(store, "carried", spec)) for file, spec in zip(files, rounds, strict=True)
        ]
        answers_file = stack.enter_context(StoreFile(store.path / "answers"))
        answers_out = RecordWriter(answers_file, file_header(store, "answers"))
        has_answers = False
        for number, (image, carried) in enumerate(zip(store.images, images, strict=True)):
            asked = np.zeros(image.height * image.width, dtype=np.bool_)
            checked: list[tuple[Round, ImagePicks]] = []
            for position, (spec, record) in enumerate(zip(rounds, carried.picks, strict=True)):
                picks = check_picks(record, spec, image)
                if not len(picks.picks):
                    continue
                indices = regions_of(picks, spec, image).indices
                check_disjoint(indices, asked, f"carried round {position}, image {image.image_id!r}", image.width)
                asked[indices] = True
                checked.append((spec, picks))
                payload = encode_picks(picks)
                digests[position].update(number.to_bytes(4, "little") + hashlib.sha256(payload).digest())
                outs[position].add(number, payload)
            indices, labels = check_answers(carried.answers, len(store.class_names), image)
            if len(indices):
                answers_out.add(number, encode_answers(indices, labels, image, squares_of(checked)))
                has_answers = True
        entries = [out.finish(f"carried-{position:03d}") for position, out in enumerate(outs)]
        events: list[Event] = []
        if has_answers:
            entry = answers_out.finish("answers")
            answers_file.publish(entry.name)
            events.append(AnswersEvent(entry))
        for file, entry, spec, digest in zip(files, entries, rounds, digests, strict=True):
            file.publish(entry.name)
            events.append(RoundEvent(spec, digest.hexdigest(), entry, is_carried=True))
    return events
