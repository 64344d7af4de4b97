from __future__ import annotations

import ast
import pickle
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import ledger
import ripu.labelstore
from ledger import BUDGET, CLASSES, IMAGES, begin, check_labels, contents, expected_label, make, records
from ripu.io import writing
from ripu.labelstore import (
    NO_ROUND,
    CorruptStoreError,
    ImageAnswers,
    ImagePicks,
    LabelStore,
    LabelStoreError,
    Regions,
    RoundConflictError,
    RoundOrderError,
    StoreMissingError,
    TargetImage,
    square_regions,
)
from ripu.labelstore.errors import (
    AnswerConflictError,
    BadLabelError,
    BadPickError,
    OverBudgetError,
    RevealedTwiceError,
    StoreExistsError,
    StoreLockedError,
    StoreWriteError,
    UnknownImageError,
)

A, B, C, EMPTY = (image.image_id for image in IMAGES)


def test_what_is_created_is_read_back(folder: Path) -> None:
    make(folder).close()
    store = LabelStore.open(folder)
    assert store.images == IMAGES
    assert store.class_names == CLASSES
    assert store.header.metadata == {"seed": 3}
    assert store.planned_picks == 18
    assert store.num_rounds == 0
    assert store.rounds == ()
    check_labels(store, 0)


def test_rounds_are_read_as_of_any_point(folder: Path) -> None:
    make(folder, 3).close()
    store = LabelStore.open(folder)
    assert [(spec.index, spec.step, spec.budget) for spec in store.rounds] == [(0, 100, 6), (1, 200, 6), (2, 300, 6)]
    assert store.rounds[1].info == {"score": "ripu"}
    for num_rounds in range(4):
        check_labels(store, num_rounds)
        mask = np.zeros(24 * 31, dtype=bool)
        by_round = np.full(24 * 31, NO_ROUND, dtype=np.uint8)
        for index in range(num_rounds):
            mask[ledger.asked(0, index)] = True
            by_round[ledger.asked(0, index)] = index
        np.testing.assert_array_equal(store.asked_mask(A, num_rounds).ravel(), mask)
        np.testing.assert_array_equal(store.revealed_round(A, num_rounds).ravel(), by_round)
    np.testing.assert_array_equal(store.revealed_label(A), expected_label(0, 3))
    record = store.picks(B, 1)
    np.testing.assert_array_equal(record.picks, ledger.picks(1, 1))
    np.testing.assert_array_equal(record.scores, np.linspace(1, 0.5, BUDGET, dtype=np.float32))
    assert record.digest == "digest 1 1"
    assert len(store.picks(EMPTY, 1).picks) == 0


def test_suppressed_is_the_chebyshev_neighbourhood_of_every_earlier_pick(folder: Path) -> None:
    store = make(folder, 2)
    rows, cols = np.mgrid[:24, :31]
    for num_rounds in range(3):
        expected = np.zeros((24, 31), dtype=bool)
        for index in range(num_rounds):
            for row, col in ledger.picks(0, index):
                expected |= np.maximum(abs(rows - row), abs(cols - col)) <= 2
        np.testing.assert_array_equal(store.suppressed(A, num_rounds), expected)


def test_a_region_that_reaches_beyond_the_radius_is_suppressed_too(folder: Path) -> None:
    store = make(folder)
    spec = store.begin_round(0, 1, 1, suppress_radius=1)
    store.add_round(spec, [ImagePicks(A, np.array([[0, 0]]), regions=Regions.from_sets([[0, 10]]))])
    assert store.suppressed(A).ravel()[[0, 1, 10]].all()
    assert store.suppressed(A).sum() == 5


def test_a_round_may_come_before_its_answers(folder: Path) -> None:
    store = make(folder)
    store.add_round(begin(store, 0), records(0, answered=False))
    indices = ledger.asked(0, 0)
    assert (store.revealed_label(A) == 255).all()
    assert (store.revealed_round(A) == NO_ROUND).all()
    np.testing.assert_array_equal(np.sort(store.unanswered(A)), np.sort(indices))
    some = indices[: len(indices) // 2]
    assert store.append_answers([ImageAnswers(A, some, ledger.truth(0)[some])]) == len(some)
    labels, known = store.answered(A, indices)
    np.testing.assert_array_equal(known, np.isin(indices, some))
    np.testing.assert_array_equal(labels[known], ledger.truth(0)[some])
    assert (labels[~known] == 255).all()
    np.testing.assert_array_equal(np.sort(store.unanswered(A)), np.sort(indices[len(some) :]))
    # The rest in one call with what is known already: only the rest is new.
    answers = [
        ImageAnswers(image.image_id, ledger.asked(n, 0), ledger.truth(n)[ledger.asked(n, 0)])
        for n, image in enumerate(IMAGES[:3])
    ]
    total = sum(len(answer.indices) for answer in answers)
    assert store.append_answers(answers) == total - len(some)
    check_labels(store, 1)
    before = contents(folder)
    assert store.append_answers(answers) == 0
    assert contents(folder) == before


def test_void_is_an_answer(folder: Path) -> None:
    store = make(folder)
    store.add_round(store.begin_round(0, 1, 1), [ImagePicks(A, np.array([[2, 3]]))])
    store.append_answers([ImageAnswers(A, np.array([2 * 31 + 3]), np.array([255]))])
    labels, known = store.answered(A, [[2 * 31 + 3, 0]])
    assert labels.tolist() == [[255, 255]]
    assert known.tolist() == [[True, False]]
    assert store.revealed_round(A)[2, 3] == 0
    assert store.unanswered(A).size == 0
    assert store.answered(A, [])[0].shape == (0,)


def test_an_answer_is_never_replaced(folder: Path) -> None:
    store = make(folder, 1)
    pixel = ledger.asked(0, 0)[:1]
    before = contents(folder)
    other = (ledger.truth(0)[pixel] + 1) % 3
    with pytest.raises(AnswerConflictError, match="never replaced"):
        store.append_answers([ImageAnswers(A, pixel, other)])
    with pytest.raises(AnswerConflictError, match="two different answers"):
        store.append_answers([ImageAnswers(A, np.array([700]), np.array([v])) for v in (0, 1)])
    assert contents(folder) == before
    check_labels(store, 1)


def test_committing_again_is_a_no_op_and_with_other_content_an_error(folder: Path) -> None:
    store = make(folder, 2)
    before = contents(folder)
    assert not store.add_round(begin(store, 1), records(1))
    assert not store.add_round(begin(store, 0), reversed(list(records(0))))
    assert contents(folder) == before
    with pytest.raises(RoundConflictError, match="round 1 is already committed"):
        store.add_round(begin(store, 1), records(1, [0, 1]))
    with pytest.raises(RoundConflictError, match="round 0 is already committed"):
        store.add_round(store.begin_round(0, 50, BUDGET, reveal_radius=1, suppress_radius=2), records(0))
    check_labels(LabelStore.open(folder), 2)
    store.close()
    with LabelStore.open(folder, write=True):
        assert contents(folder) == before


def test_undo_hides_the_round_and_keeps_its_answers(folder: Path) -> None:
    store = make(folder, 2)
    reader = LabelStore.open(folder)
    check_labels(reader, 2)
    with pytest.raises(RoundOrderError, match="undo round 1 first"):
        store.undo_round(0)
    assert store.undo_round(1).index == 1
    for one in (store, reader, LabelStore.open(folder)):
        assert one.num_rounds == 1
        np.testing.assert_array_equal(one.revealed_label(A), expected_label(0, 1))
        assert not one.asked_mask(A)[np.unravel_index(ledger.asked(0, 1), (24, 31))].any()
        labels, known = one.answered(A, ledger.asked(0, 1))
        assert known.all()
        np.testing.assert_array_equal(labels, ledger.truth(0)[ledger.asked(0, 1)])
        with pytest.raises(RoundOrderError):
            one.revealed_label(A, 2)
    assert store.stats().unasked_answers == sum(len(ledger.asked(n, 1)) for n in range(3))
    # Afresh with other content: what is known needs no oracle.
    assert store.add_round(begin(store, 1), records(1, [0], answered=False))
    np.testing.assert_array_equal(reader.revealed_label(A), expected_label(0, 2))
    np.testing.assert_array_equal(reader.revealed_label(B), expected_label(1, 1))
    store.undo_round(1)
    assert store.add_round(begin(store, 1), records(1))  # the same as at first
    check_labels(reader, 2)
    assert store.verify() == []


def bad(image_id: str = A, **kwargs: object) -> ImagePicks:
    return ImagePicks(image_id, **{"picks": np.array([[0, 0]]), **kwargs})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        (bad("nowhere"), UnknownImageError, "no image 'nowhere' among the 4"),
        (bad(picks=np.array([[24, 0]])), BadPickError, r"\(row 24, column 0\) lies outside the 24 x 31"),
        (bad(picks=np.array([[0, -1]])), BadPickError, "outside"),
        (bad(picks=np.array([[0.0, 1.0]])), BadPickError, "float64 is not an integer"),
        (bad(picks=np.array([0, 1])), BadPickError, r"shape \(2,\)"),
        (bad(scores=np.zeros(2)), BadPickError, "scores have shape"),
        (bad(digest="é"), BadPickError, "ASCII"),
        (bad(picks=np.array([[3 * i, 0] for i in range(7)])), OverBudgetError, "7 picks, the budget of the round is 6"),
        (bad(picks=np.array([[5, 5], [6, 7]])), RevealedTwiceError, r"\(row 5, column 6\).*two picks of this round"),
        (bad(picks=np.array([[5, 5], [5, 5]])), RevealedTwiceError, "again"),
        (bad(regions=Regions.from_sets([[1], [2]])), BadPickError, "non-empty sets"),
        (bad(regions=Regions.from_sets([[]])), BadPickError, "non-empty sets"),
        (bad(regions=Regions.from_sets([[24 * 31]])), BadPickError, "leave the 24 x 31 label"),
        (bad(regions=Regions.from_sets([[-1]])), BadPickError, "leave the"),
        (bad(regions=Regions.from_sets([[4, 4]])), RevealedTwiceError, "again"),
        (ImageAnswers("nowhere", np.array([0]), np.array([0])), UnknownImageError, "nowhere"),
        (ImageAnswers(A, np.array([0]), np.array([3])), BadLabelError, "label 3 is neither a class 0..2 nor 255"),
        (ImageAnswers(A, np.array([0]), np.array([-1])), BadLabelError, "label -1"),
        (ImageAnswers(A, np.array([24 * 31]), np.array([0])), BadLabelError, "leave the"),
        (ImageAnswers(A, np.array([1, 1]), np.array([0, 0])), BadLabelError, "twice"),
        (ImageAnswers(A, np.array([1, 2]), np.array([0])), BadLabelError, "give two"),
        (ImageAnswers(A, np.array([1]), np.array([0.5])), BadLabelError, "float64"),
    ],
)
def test_bad_records_are_refused_and_change_nothing(
    folder: Path, record: ImagePicks | ImageAnswers, error: type[Exception], message: str
) -> None:
    store = make(folder)
    before = contents(folder)
    spec = begin(store, 0)
    with pytest.raises(error, match=message):
        store.write_shard(spec, 0, [*records(0, [1]), record])
    if isinstance(record, ImageAnswers):
        with pytest.raises(error, match=message):
            store.append_answers([record])
    assert contents(folder) == before


def test_a_pixel_is_asked_for_once_in_all_rounds(folder: Path) -> None:
    store = make(folder, 1)
    row, col = ledger.picks(0, 0)[0]
    near = np.array([[min(row + 1, 23), max(col - 1, 0)]])
    with pytest.raises(RevealedTwiceError, match="an earlier round asked about it"):
        store.add_round(begin(store, 1), [ImagePicks(A, near)])
    with pytest.raises(RevealedTwiceError, match="an earlier round"):
        store.add_round(begin(store, 1), [bad(regions=Regions.from_sets([[int(row) * 31 + int(col)]]))])
    store.undo_round(0)
    assert store.add_round(begin(store, 0), [ImagePicks(A, near)])


def test_the_order_of_rounds(folder: Path) -> None:
    store = make(folder, 1)
    with pytest.raises(RoundOrderError, match="round 1 is the next one"):
        begin(store, 2)
    with pytest.raises(RoundOrderError, match="steps have to increase"):
        store.begin_round(1, 100, 1)
    for value in (-1, 0.5):
        with pytest.raises(LabelStoreError, match="budget is"):
            store.begin_round(1, 200, value)  # type: ignore[arg-type]
    with pytest.raises(LabelStoreError, match="plain JSON"):
        store.begin_round(1, 200, 1, info={"a": object()})
    with pytest.raises(RoundOrderError, match="there is no round 1"):
        store.picks(A, 1)
    with pytest.raises(RoundOrderError, match="as of 2 rounds, 1 are committed"):
        store.revealed_label(A, 2)
    with pytest.raises(UnknownImageError):
        store.revealed_label("x")
    with pytest.raises(BadLabelError):
        store.answered(A, [24 * 31])
    with pytest.raises(BadLabelError):
        store.answered(A, [0.5])


def test_a_round_without_picks(folder: Path) -> None:
    store = make(folder)
    assert store.add_round(begin(store, 0), [ImagePicks(A, np.zeros((0, 2), int)), ImagePicks(B, np.array([]))])
    assert not store.add_round(begin(store, 0), [ImagePicks(A, np.zeros((0, 2), int)), ImagePicks(B, np.array([]))])
    assert store.add_round(begin(store, 1), [])
    assert store.asked_mask(A).sum() == 0
    assert store.verify() == []


def test_creating(folder: Path, tmp_path: Path) -> None:
    make(folder).close()
    with pytest.raises(StoreExistsError, match="already contains a label store"):
        make(folder)
    with LabelStore.create(folder, IMAGES, CLASSES, {"seed": 3}, planned_picks=18, exist_ok=True) as store:
        assert store.is_writable
    with pytest.raises(StoreExistsError, match="other metadata"):
        LabelStore.create(folder, IMAGES, CLASSES, {"seed": 4}, planned_picks=18, exist_ok=True)
    with pytest.raises(StoreExistsError, match="other images, class_names"):
        LabelStore.create(folder, IMAGES[:1], ["x"], {"seed": 3}, planned_picks=18, exist_ok=True)
    moved = [TargetImage("new", 4, 4), replace(IMAGES[0], height=99), *IMAGES[2:]]
    changed = rf"\(1 added: new; 1 gone: {IMAGES[1].image_id}; 1 of another size: {IMAGES[0].image_id}\); continue"
    with pytest.raises(StoreExistsError, match=f"other images {changed}"):
        LabelStore.create(folder, moved, CLASSES, {"seed": 3}, planned_picks=18, exist_ok=True)
    with LabelStore.open(folder, write=True):
        pass  # none of them kept the lock
    with pytest.raises(StoreMissingError, match="no label store here"):
        LabelStore.open(tmp_path)
    other = tmp_path / "other"
    with pytest.raises(LabelStoreError, match="occurs twice"):
        LabelStore.create(other, [IMAGES[0], IMAGES[0]], CLASSES)
    with pytest.raises(LabelStoreError, match="size"):
        LabelStore.create(other, [TargetImage("x", 0, 4)], CLASSES)
    with pytest.raises(LabelStoreError, match="size"):
        LabelStore.create(other, [TargetImage("x", 4, 4.0)], CLASSES)  # type: ignore[arg-type]
    with pytest.raises(LabelStoreError, match="class names"):
        LabelStore.create(other, IMAGES, [str(i) for i in range(255)])
    with pytest.raises(LabelStoreError, match="plain JSON"):
        LabelStore.create(other, IMAGES, CLASSES, {"folder": tmp_path})
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError, match="cannot be written: a file is in the way of a folder"):
        LabelStore.create(tmp_path / "file" / "labels", IMAGES, CLASSES)
    sizes = [TargetImage("x", np.int64(4), np.int32(5))]  # type: ignore[arg-type]
    with LabelStore.create(other, sizes, CLASSES) as store:
        assert store.revealed_label("x").shape == (4, 5)


@pytest.mark.parametrize(
    "image_id",
    ["../../x", "/etc/passwd", "nul\0byte", "a" * 10_000, ".", "..", "manifest.json", "con\n\x1b[31m", "\udcff", "ä/ö"],
)
def test_hostile_image_ids_are_names_and_nothing_else(tmp_path: Path, image_id: str) -> None:
    with LabelStore.create(tmp_path / "run" / "labels", [TargetImage(image_id, 4, 5)], CLASSES) as store:
        pick, answer = ImagePicks(image_id, np.array([[1, 1]])), ImageAnswers(image_id, np.array([6]), np.array([2]))
        store.add_round(store.begin_round(0, 1, 1), [pick, answer])
        assert LabelStore.open(store.path).revealed_label(image_id)[1, 1] == 2
        assert store.verify() == []
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"labels"}
    assert all(path.suffix in (".dat", ".json", "") for path in (tmp_path / "run" / "labels").iterdir())


def read_in_worker(store: LabelStore) -> tuple[bytes, bool]:
    try:
        store.append_answers([])
    except StoreLockedError:
        return store.revealed_label(A).tobytes(), True
    return b"", False


def test_readers_pickle_and_writers_do_not_travel(folder: Path) -> None:
    store = make(folder, 2)
    expected = expected_label(0, 2).tobytes()
    assert read_in_worker(pickle.loads(pickle.dumps(store))) == (expected, True)
    assert len(pickle.dumps(store)) < 500
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(read_in_worker, (store,)) == (expected, True)
    status = ledger.run_and_die(lambda: 0 if read_in_worker(store)[1] else 1)  # inherited, not pickled
    assert status == 0
    assert store.is_writable
    store.append_answers([ImageAnswers(A, np.array([0]), ledger.truth(0)[:1])])


def test_a_reader_sees_what_was_committed_since(folder: Path) -> None:
    store = make(folder, 1)
    reader = LabelStore.open(folder)
    check_labels(reader, 1)
    store.add_round(begin(store, 1), records(1))
    assert reader.num_rounds == 2
    check_labels(reader, 2)
    check_labels(reader, 1)


def test_a_round_that_is_shown_late_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the other machines of a job, whose network file system has an older manifest for a while."""
    store = make(folder, 1)
    late = (folder / "manifest.json").read_bytes()
    store.add_round(begin(store, 1), records(1))
    committed = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(late)
    reader, waits = LabelStore.open(folder), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            (folder / "manifest.json").write_bytes(committed)

    monkeypatch.setattr("ripu.labelstore.reader.time.sleep", sleep)
    reader.await_rounds(2)
    assert len(waits) == 2
    check_labels(reader, 2)
    with pytest.raises(RoundOrderError, match=r"3 rounds are committed, but this machine .* sees 2 after 0 s"):
        reader.await_rounds(3, seconds=0)


def test_store_of_another_run_and_unknown_versions(tmp_path: Path) -> None:
    make(tmp_path / "a").close()
    LabelStore.create(tmp_path / "b", IMAGES[:1], CLASSES).close()
    (tmp_path / "a" / "store.json").write_bytes((tmp_path / "b" / "store.json").read_bytes())
    with pytest.raises(CorruptStoreError, match="belongs to another store"):
        _ = LabelStore.open(tmp_path / "a").num_rounds


def test_square_regions_match_the_definition() -> None:
    picks = np.array([[0, 0], [2, 3], [4, 6], [0, 6]])
    for radius in (0, 1, 2, 9):
        found = square_regions(picks, radius, 5, 7)
        for n, (row, col) in enumerate(picks):
            expected = [r * 7 + c for r in range(5) for c in range(7) if max(abs(r - row), abs(c - col)) <= radius]
            assert found.indices[found.offsets[n] : found.offsets[n + 1]].tolist() == expected
    assert len(square_regions(np.zeros((0, 2), int), 1, 5, 7)) == 0


def test_neither_torch_nor_pickle_is_imported() -> None:
    allowed = set(sys.stdlib_module_names) - {"pickle", "shelve", "marshal"} | {"filelock", "numpy", "ripu"}
    rooms = Path(ripu.labelstore.__file__).parent, Path(writing.__file__).parent
    for path in (*rooms[0].glob("*.py"), *(rooms[1] / f"{name}.py" for name in ("errors", "lock", "writing"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert {name.split(".")[0] for name in names} <= allowed
                assert all(
                    not name.startswith("ripu.") or name.startswith(("ripu.labelstore", "ripu.io")) for name in names
                )
            assert not (isinstance(node, ast.Attribute) and node.attr in ("load", "save", "savez", "fromfile"))
