"""A round by one, two and three ranks: the same bytes; and a failure of one is a failure of all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rounds
from ripu.acquisition import (
    CannyEntropy,
    ClassBalanced,
    ColorClusters,
    DensityRatio,
    DensityToUncertain,
    DiverseToUncertain,
    MarginBalanced,
    PixelPick,
    RandomScore,
    RipuScore,
    UncertaintyOnly,
)
from ripu.labelstore import LabelStore, RoundOrderError
from ripu.regions import Rectangles
from ripu.selection.ranks import SelectionError
from running import environment

VARIANTS: dict[str, dict[str, Any]] = {
    "ra": {},
    "pa": {"pixel": True, "radius": 3, "suppress_radius": 3, "budget": 30},
    "random": {"acquisition": RandomScore()},
    "canny": {"acquisition": CannyEntropy(1)},
    "dataset": {"budget_per": "dataset"},
    "dataset-pa": {"pixel": True, "radius": 3, "suppress_radius": 3, "budget": 30, "budget_per": "dataset"},
    "rectangles": {"region": Rectangles(5, 4)},
    "survey": {"acquisition": MarginBalanced(1)},
    "nested-survey": {"acquisition": PixelPick(MarginBalanced(1), 0.1), "budget_per": "dataset"},
    "survey-rectangles": {"acquisition": ClassBalanced(MarginBalanced(1)), "region": Rectangles(5, 4)},
    "diverse": {"acquisition": DiverseToUncertain(RipuScore(1)), "region": Rectangles(5, 4)},
    "density": {"acquisition": DensityToUncertain(ClassBalanced(DensityRatio(1)), UncertaintyOnly(1))},
    "density-rectangles": {
        "acquisition": DensityToUncertain(DensityRatio(1, source_images=4), MarginBalanced(1)),
        "region": Rectangles(5, 4),
    },
    "density-dataset": {"acquisition": DensityRatio(1), "budget_per": "dataset"},
    "first": {"first_round": ColorClusters(4)},
    "dataset-rectangles": {"region": Rectangles(5, 4), "budget_per": "dataset"},
    "images": {"whole_image": True, "budget_per": "dataset", "budget": 0.7},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Bytes are promised for equal thread counts, and the ranks of a job run on one thread each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _run_all(folder: Path, world_size: int, variant: str) -> dict[str, bytes]:
    engine = rounds.make_engine(**VARIANTS[variant])
    with rounds.make_store(folder) as store:
        for index in range(3):
            for tally in rounds.run_ranks(engine, store, index, world_size):
                if isinstance(tally, Exception):
                    raise tally
    return rounds.store_bytes(folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bytes_do_not_depend_on_the_number_of_ranks(tmp_path: Path, variant: str) -> None:
    alone, two, three = (_run_all(tmp_path / str(size), size, variant) for size in (1, 2, 3))
    assert len(alone) > 4
    assert alone == two
    assert alone == three


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_every_forward_batch_is_the_same_whatever_the_number_of_ranks(tmp_path: Path, world_size: int) -> None:
    engine, forward = rounds.make_engine(), rounds.network()
    seen: list[bytes] = []

    def network(image: Tensor) -> Tensor:
        seen.append(image.numpy().tobytes())
        return forward(image)

    with rounds.make_store(tmp_path) as store:
        rounds.run_ranks(engine, store, 0, world_size, network=network)
    everything = rounds.images().numpy()
    assert sorted(seen) == sorted(everything[first : first + 2].tobytes() for first in range(0, len(everything), 2))


@pytest.mark.parametrize("variant", ["ra", "dataset"])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_failure_on_one_rank_fails_the_round_for_all(tmp_path: Path, variant: str, broken: int) -> None:
    engine = rounds.make_engine(**VARIANTS[variant])

    def network_of(rank: int) -> Any:
        def network(image: Tensor) -> Tensor:
            if rank == broken:
                raise RuntimeError("the cable was pulled")
            return rounds.network()(image)

        return network

    with rounds.make_store(tmp_path / "labels") as store:
        before = (tmp_path / "labels" / "manifest.json").read_bytes()
        outcome = rounds.run_ranks(engine, store, 0, 2, network_of=network_of)
        assert all(isinstance(one, SelectionError) for one in outcome)
        assert "the cable was pulled" in str(outcome[broken])
        assert "another process" in str(outcome[1 - broken])
        assert store.num_rounds == 0
        assert (tmp_path / "labels" / "manifest.json").read_bytes() == before
        rounds.run_ranks(engine, store, 0, 2)  # the same store goes on
        assert store.num_rounds == 1
    with rounds.make_store(tmp_path / "fresh") as fresh:
        rounds.run_ranks(engine, fresh, 0, 1)
        for image in rounds.IDS:
            np.testing.assert_array_equal(store.revealed_label(image), fresh.revealed_label(image))


def test_not_a_number_names_the_image(tmp_path: Path) -> None:
    engine = rounds.make_engine()

    def network(image: Tensor) -> Tensor:
        logits = rounds.network()(image)
        if torch.equal(image[-1], rounds.images()[3]):
            logits[-1, 0, 0, 0] = torch.nan
        return logits

    with rounds.make_store(tmp_path) as store:
        with pytest.raises(SelectionError, match=r"scene/3.*NaN"):
            rounds.run_round(engine, store, 0, network=network)
        assert store.num_rounds == 0


def test_out_of_memory_halves_the_batch_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine, forward = rounds.make_engine(), rounds.network()
    sizes: list[int] = []

    def network(image: Tensor) -> Tensor:
        sizes.append(len(image))
        if len(image) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(image)

    def pool(indices: list[int]) -> Any:
        return rounds.pool(indices, batch_size=5)

    with rounds.make_store(tmp_path / "halved") as halved:
        rounds.run_round(engine, halved, 0, network=network, pool=pool)
    assert sizes == [5, 2, 2, 1, 2]
    assert "continuing with 2" in caplog.text
    with rounds.make_store(tmp_path / "plain") as plain:
        rounds.run_round(engine, plain, 0)
    for image in rounds.IDS:
        np.testing.assert_array_equal(halved.picks(image, 0).picks, plain.picks(image, 0).picks)


def test_out_of_memory_for_one_image_is_an_error(tmp_path: Path) -> None:
    def network(image: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with rounds.make_store(tmp_path) as store, pytest.raises(SelectionError, match=r"data\.target_size"):
        rounds.run_round(rounds.make_engine(), store, 0, network=network)


def test_the_data_set_shares_one_budget(tmp_path: Path) -> None:
    each = rounds.make_engine()
    shared = rounds.make_engine(budget_per="dataset", image_cap=2.0)
    share = each.scorer.query.picks_per_round(rounds.LABEL, rounds.INPUT)
    with rounds.make_store(tmp_path / "each") as one, rounds.make_store(tmp_path / "shared") as other:
        rounds.run_round(each, one, 0)
        rounds.run_round(shared, other, 0)
        counts = [len(other.picks(image, 0).picks) for image in rounds.IDS]
        assert sum(counts) == share * rounds.NUM_IMAGES
        assert max(counts) <= 2 * share
        assert min(counts) < share < max(counts)
        for image, count in zip(rounds.IDS, counts, strict=True):
            common = min(count, share)  # both take an image's best places in the same order
            np.testing.assert_array_equal(one.picks(image, 0).picks[:common], other.picks(image, 0).picks[:common])
        lowest = min(float(other.picks(image, 0).scores[-1]) for image, n in zip(rounds.IDS, counts, strict=True) if n)
        for image, count in zip(rounds.IDS, counts, strict=True):
            if count < share:  # what it would have got next is no better than what others got
                assert float(one.picks(image, 0).scores[count]) <= lowest


def test_no_leftovers_after_a_shared_round(tmp_path: Path) -> None:
    with rounds.make_store(tmp_path) as store:
        rounds.run_ranks(rounds.make_engine(budget_per="dataset"), store, 0, 3)
        assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".tmp", "shard"))]


def test_a_round_that_a_rank_does_not_see_ends_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rounds.make_store(tmp_path) as store:

        def await_rounds(self: LabelStore, num_rounds: int) -> None:
            if self is not store:
                raise RoundOrderError("not here")

        monkeypatch.setattr(LabelStore, "await_rounds", await_rounds)
        own, other = rounds.run_ranks(rounds.make_engine(), store, 0, 2)
        assert store.num_rounds == 1
    assert str(own).startswith("round 0 at step 10 is committed, but not all processes see it: another process")
    assert str(other).endswith("see it: not here")


GLOO = """
import sys, datetime, torch, torch.distributed as dist
from pathlib import Path
from ripu.labelstore import LabelStore
import rounds

rank, folder, meeting = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", f"file://{meeting}", datetime.timedelta(seconds=20), rank=rank, world_size=2)

class Ranks:
    world_size = 2
    def __init__(self): self.rank = rank
    def all_true(self, value):
        flag = torch.tensor(int(value))
        dist.all_reduce(flag, dist.ReduceOp.MIN)
        return bool(flag)

store = rounds.make_store(folder) if rank == 0 else None
dist.barrier()
store = store or LabelStore.open(folder)
engine = rounds.make_engine(budget_per=sys.argv[4])
for index in range(2):
    rounds.run_round(engine, store, index, ranks=Ranks())
dist.barrier()
store.close()
dist.destroy_process_group()  # its watching thread must end before the interpreter does
"""


@pytest.mark.slow
@pytest.mark.parametrize("budget_per", ["image", "dataset"])
def test_two_processes(tmp_path: Path, budget_per: str) -> None:
    command = [sys.executable, "-c", GLOO]
    words = [str(tmp_path / "two"), str(tmp_path / "meeting"), budget_per]
    jobs = [subprocess.Popen([*command, str(rank), *words], env=environment()) for rank in (0, 1)]
    assert [job.wait(60) for job in jobs] == [0, 0]
    engine = rounds.make_engine(budget_per=budget_per)
    with rounds.make_store(tmp_path / "one") as store:
        for index in range(2):
            rounds.run_round(engine, store, index)
    assert rounds.store_bytes(tmp_path / "one") == rounds.store_bytes(tmp_path / "two")
