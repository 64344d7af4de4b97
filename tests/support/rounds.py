"""A small round: images, a network and an oracle, in one process or in several ranks played by threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ripu.acquisition import Features, RipuScore
from ripu.labelstore import LabelStore, TargetImage
from ripu.loading.samples import collate_eval
from ripu.selection.engine import SelectionEngine
from ripu.selection.forward import Labelled
from ripu.selection.query import Query
from ripu.selection.scoring import Scorer

NUM_IMAGES, NUM_CLASSES = 7, 5
LABEL, INPUT = (30, 44), (15, 22)
IDS = tuple(f"scene/{number}" for number in range(NUM_IMAGES))


def images() -> Tensor:
    """(N, 3, h, w) uint8: smooth blobs, different in each image."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(NUM_IMAGES, 3, 4, 5, generator=generator) * 255
    return nn.functional.interpolate(coarse, INPUT, mode="bicubic").clamp(0, 255).to(torch.uint8)


def network() -> Callable[[Tensor], Tensor]:
    """Two fixed random convolutions."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(8, 3, 3, 3, generator=generator)
    second = torch.randn(NUM_CLASSES, 8, 3, 3, generator=generator)

    def forward(image: Tensor) -> Tensor:
        hidden = nn.functional.conv2d(image.float() / 128 - 1, first, padding=1).relu()
        return nn.functional.conv2d(hidden, second, padding=1)

    return forward


class Pool(Dataset[dict[str, Any]]):
    def __init__(self, indices: list[int]) -> None:
        self.indices, self.images = indices, images()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return {"image": self.images[self.indices[item]], "index": self.indices[item]}


def pool(indices: list[int], batch_size: int = 2) -> DataLoader[Any]:
    return DataLoader(Pool(indices), batch_size=batch_size, collate_fn=collate_eval)


def truth(image_id: str) -> NDArray[np.uint8]:
    """(H, W) uint8 labels with a void strip."""
    number = IDS.index(image_id)
    rows, columns = np.indices(LABEL)
    label = ((rows // 5 + columns // 7 + number) % NUM_CLASSES).astype(np.uint8)
    label[:2] = 255
    return label


class Truth:
    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
        return truth(image_id)[rows, columns]


def make_engine(**changes: Any) -> SelectionEngine:
    """An engine of three rounds; ``query`` fields and engine fields may be given."""
    names = (
        "pixel",
        "radius",
        "suppress_radius",
        "budget",
        "num_rounds",
        "budget_per",
        "image_cap",
        "grid",
        "whole_image",
    )
    query: dict[str, Any] = {"pixel": False, "radius": 1, "suppress_radius": 2, "budget": 0.2, "num_rounds": 3}
    query |= {name: changes.pop(name) for name in names if name in changes}
    fields: dict[str, Any] = {
        "acquisition": RipuScore(radius=query["radius"], pixel=query["pixel"]),
        "query": Query(**query),
        "image_ids": IDS,
        "label_sizes": (LABEL,) * NUM_IMAGES,
        "train_size": INPUT,
        "seed": 5,
    }
    oracle = changes.pop("oracle", Truth())
    return SelectionEngine(Scorer(**(fields | changes)), oracle)


def make_store(folder: Path) -> LabelStore:
    return LabelStore.create(folder, [TargetImage(one, *LABEL) for one in IDS], [f"c{c}" for c in range(NUM_CLASSES)])


class ThreadRanks:
    """One of several ranks in threads of this process; waiting ends with an error after some seconds."""

    def __init__(self, rank: int, world_size: int, barrier: threading.Barrier, values: list[bool]) -> None:
        self.rank, self.world_size = rank, world_size
        self._barrier, self._values = barrier, values

    def all_true(self, value: bool) -> bool:
        self._values[self.rank] = value
        self._barrier.wait(30)
        result = all(self._values)
        self._barrier.wait(30)
        return result


def run_round(engine: SelectionEngine, store: LabelStore, index: int, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"network": network(), "pool": pool, "device": torch.device("cpu")}
    arguments |= {"with_features": with_features, "source": Labelled(11, source_loader)}
    step = changes.pop("step", 10 * (index + 1))
    return engine.run(store, index, step, **(arguments | changes))


def run_ranks(engine: SelectionEngine, store: LabelStore, index: int, world_size: int, **changes: Any) -> list[Any]:
    """One round by several ranks; what each returned or raised."""
    barrier, values = threading.Barrier(world_size), [False] * world_size
    outcome: list[Any] = [None] * world_size

    def work(rank: int) -> None:
        own = store if rank == 0 else LabelStore.open(store.path)
        mine = {name: value(rank) if name == "network_of" else value for name, value in changes.items()}
        mine = {("network" if name == "network_of" else name): value for name, value in mine.items()}
        try:
            outcome[rank] = run_round(engine, own, index, ranks=ThreadRanks(rank, world_size, barrier, values), **mine)
        except Exception as error:
            outcome[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def store_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a store but the lock."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "lock"}


def with_features(image: Tensor) -> tuple[Tensor, Features]:
    """The logits of :func:`network` with what its second convolution reads."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(8, 3, 3, 3, generator=generator)
    hidden = nn.functional.conv2d(image.float() / 128 - 1, first, padding=1).relu()
    return network()(image), Features(hidden, INPUT)


class SourceScenes(Dataset[dict[str, Any]]):
    """Images of the source: darker than the target's, with labels of another size."""

    def __init__(self, indices: list[int]) -> None:
        self.indices, self.images = indices, images() // 2

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, Any]:
        index = self.indices[item]
        label = torch.from_numpy(truth(IDS[index % NUM_IMAGES]))
        return {"image": self.images[index % NUM_IMAGES].flip(-1), "index": index, "label": label}


def source_loader(indices: list[int]) -> DataLoader[Any]:
    return DataLoader(SourceScenes(indices), batch_size=2, collate_fn=collate_eval)
