"""Documents with a valid checksum and wrong content: edited by hand, swapped, or foreign."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import IMAGES, check_labels, contents, make
from ripu.labelstore import CorruptStoreError, LabelStore, LabelStoreError
from ripu.labelstore.errors import StoreWriteError
from ripu.labelstore.files import _FOOTER, MAGIC, RecordFile, RecordWriter, StoreFile, canonical_json

VALUES = (None, -1, 2**70, 1.5, True, "x", "../../etc/passwd", [], ["a"], {}, {"a": 1})


def signed(body: Any) -> bytes:
    return canonical_json({"body": body, "sha256": hashlib.sha256(canonical_json(body)).hexdigest()}) + b"\n"


def edits(body: Any, path: tuple[Any, ...] = ()) -> Iterator[Any]:
    """The document with one value replaced by something else, or gone, for every value in it."""
    here = body
    for key in path:
        here = here[key]
    for key in list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ():
        for value in (*VALUES, "away"):
            changed = copy.deepcopy(body)
            place = changed
            for one in path:
                place = place[one]
            if value == "away":
                del place[key]
            else:
                place[key] = value
            yield changed
        yield from edits(body, (*path, key))


def works(folder: Path) -> tuple[Callable[[], Any], ...]:
    return (
        lambda: LabelStore.open(folder).verify(),
        lambda: LabelStore.open(folder).stats().to_json(),
        lambda: LabelStore.open(folder).revealed_label(IMAGES[0].image_id),
        lambda: LabelStore.open(folder, write=True).close(),
    )


@pytest.mark.parametrize("name", ["manifest.json", "store.json"])
def test_an_edited_document_never_ends_in_anything_but_an_error_of_the_store(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "labels"
    with make(folder, 2) as store:
        store.undo_round(1)
    whole = contents(folder)
    named = 0
    for body in edits(json.loads(whole[name])["body"]):
        for other, data in whole.items():  # a writer that believes a shorter log tidies up
            if not (folder / other).exists():
                (folder / other).write_bytes(data)
        (folder / name).write_bytes(signed(body))
        for work in works(folder):
            try:
                work()
            except LabelStoreError as error:
                named += name in str(error)
    assert named > 500


@pytest.mark.parametrize("other", ["store.json", "round", "nothing", "folder", "circle", "deep"])
def test_something_else_in_the_place_of_a_file(tmp_path: Path, other: str) -> None:
    made = tmp_path / "made"
    make(made, 2).close()
    names = {"lock", "manifest.json"} if other == "circle" else {"lock"}  # a link to nothing is a file that is missing
    for path in [path for path in made.iterdir() if path.name not in names]:
        folder = tmp_path / "labels"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        place = folder / path.name
        place.unlink()
        if other == "folder":
            place.mkdir()
        elif other == "circle":
            place.symlink_to(place)
        elif other == "deep":
            place.write_bytes(b"[" * 100_000)
        else:
            donors = [one for one in made.iterdir() if one.name.startswith(other) and one.name != path.name]
            place.write_bytes(donors[0].read_bytes() if donors else b"")
        assert any(path.name in problem for problem in LabelStore.open(folder).verify())
        with pytest.raises(CorruptStoreError, match=path.name.split("-")[0]):
            check_labels(LabelStore.open(folder), 2)


@pytest.mark.parametrize("gone", [("manifest.json",), ("manifest.json", "store.json")])
def test_a_store_without_its_manifest_is_not_made_anew(tmp_path: Path, gone: tuple[str, ...]) -> None:
    from ledger import CLASSES

    folder = tmp_path / "labels"
    make(folder, 2).close()
    for name in gone:
        (folder / name).unlink()
    before = contents(folder)
    with pytest.raises(
        CorruptStoreError, match=r"manifest\.json: the file is missing, but answers-.* exists; restore it"
    ):
        LabelStore.create(folder, IMAGES, CLASSES, {"seed": 3}, planned_picks=18, exist_ok=True)
    assert contents(folder) == before


@pytest.mark.parametrize("what", ["pipe", "endless", "huge"])
def test_what_is_no_file_is_named_and_holds_nobody_up(what: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    make(made, 2).close()
    for path in [*(path for path in made.iterdir() if path.name != "lock"), made / "held-0123456789abcdef.dat"]:
        folder = tmp_path / "labels"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        place = folder / path.name
        place.unlink(missing_ok=True)
        if what == "pipe":
            os.mkfifo(place)
        elif what == "endless":
            place.symlink_to("/dev/zero")
        else:
            with place.open("wb") as file:
                file.truncate(1 << (30 if path.name.startswith("held") else 40))
        assert any(path.name in problem for problem in LabelStore.open(folder).verify())
        assert not any("Traceback" in problem for problem in LabelStore.open(folder).verify())


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    folder, victim = tmp_path / "labels", tmp_path / "victim"
    make(folder, 2).close()
    victim.write_text("mine")
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(victim)
    with pytest.raises(StoreWriteError, match=r"lock: cannot be opened for writing \(it is a link\)"):
        LabelStore.open(folder, write=True)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("size", [(46_340, 46_340), (1, 2**31 - 1), (2**20, 2**10), (True, 5)])
def test_an_image_of_absurd_size_takes_no_memory(size: tuple[int, int], tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    make(folder, 0).close()
    header = json.loads((folder / "store.json").read_bytes())["body"]
    header["images"] = [["a", *size]]
    (folder / "store.json").write_bytes(signed(header))
    manifest = json.loads((folder / "manifest.json").read_bytes())["body"]
    manifest["store_sha256"] = hashlib.sha256(canonical_json(header)).hexdigest()
    (folder / "manifest.json").write_bytes(signed(manifest))
    for work in works(folder)[1:2]:
        with pytest.raises(CorruptStoreError, match=r"store\.json: .*image 'a' has"):
            work()


@pytest.mark.parametrize("header", [b"[" * 50_000, b"nope", b"[]", b"9" * 5000])
def test_a_header_that_is_none_is_named(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "answers.dat"
    front = MAGIC + len(header).to_bytes(4, "little") + header
    path.write_bytes(front + _FOOTER.pack(len(front), 0, hashlib.sha256(front).digest(), MAGIC))
    with pytest.raises(CorruptStoreError, match=r"answers\.dat: the header is not JSON"):
        RecordFile(path)


def test_held_answers_for_an_image_that_is_not_there_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    make(folder, 1).close()
    with StoreFile(folder / "held") as file:
        writer = RecordWriter(file, {"kind": "answers", "store": LabelStore.open(folder).header.sha256, "round": None})
        writer.add(99, bytes(12))
        name = f"held-{writer.finish('held').sha256[:16]}.dat"
        file.publish(name)
    assert [name in problem for problem in LabelStore.open(folder).verify()] == [True]
    with pytest.raises(CorruptStoreError, match="created without"):
        LabelStore.open(folder, write=True)
    check_labels(LabelStore.open(folder), 1)
