from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ripu.datasets.taxonomy import CAMVID11
from ripu.loading.samples import collate_eval
from ripu.training.evaluation_module import EvaluationModule
from tiny import TinyNetwork

SIZES = [(20, 30), (20, 30), (41, 33), (7, 9), (20, 30)]
"""Of labels; images go through the network at one size."""


def samples(sizes: list[tuple[int, int]] | None = None) -> list[dict[str, Any]]:
    """Return an image and a label of each of SIZES; images have the given sizes."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for index, (height, width) in enumerate(SIZES):
        size = (16, 24) if sizes is None else sizes[index]
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        label = torch.randint(0, 11, (height, width), generator=generator, dtype=torch.uint8)
        label[0, 0] = 255
        made.append({"index": index, "image": image, "label": label})
    return made


def literal(module: EvaluationModule, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the probabilities of an image by themselves, (C, H, W)."""
    views = []
    for flipped in (False, True) if module.flip else (False,):
        logits = module(image[None].flip(-1) if flipped else image[None])
        probs = interpolate(logits, size, mode="bilinear", align_corners=True).softmax(dim=1)[0]
        views.append(probs.flip(-1) if flipped else probs)
    return torch.stack(views).mean(dim=0)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("sizes", [None, [(16, 24), (16, 24), (24, 16), (32, 40), (16, 24)]])
def test_a_batch_is_predicted_as_its_images_are(flip: bool, sizes: list[tuple[int, int]] | None) -> None:
    module = EvaluationModule(TinyNetwork(11), CAMVID11, flip=flip).eval()
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    module.on_prediction = lambda index, label, confidence, truth: seen.update({index: (label, confidence)})
    made = samples(sizes)
    with torch.no_grad():
        module.test_step(collate_eval(made), 0)
        counts = torch.zeros(11, 11, dtype=torch.int64)
        for sample in made:
            probs = literal(module, sample["image"], tuple(sample["label"].shape))
            label, confidence = seen[sample["index"]]
            torch.testing.assert_close(label.long(), probs.argmax(dim=0))
            torch.testing.assert_close(confidence, probs.amax(dim=0), atol=1e-5, rtol=0)
            for truth, found in zip(sample["label"].flatten().tolist(), label.flatten().tolist(), strict=True):
                if truth != 255:
                    counts[truth, found] += 1
    assert torch.equal(module.confusion.compute(), counts)


@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_of_one_size_is_one_forward_pass(flip: bool) -> None:
    network = TinyNetwork(11)
    shapes: list[int] = []
    network.register_forward_pre_hook(lambda _, given: shapes.append(len(given[0])))
    with torch.no_grad():
        EvaluationModule(network, CAMVID11, flip=flip).eval().validation_step(collate_eval(samples()), 0)
    assert shapes == [10 if flip else 5]


class Crowded(TinyNetwork):
    """Has room for some images at a time; notes the sizes of the batches that it is given."""

    def __init__(self, room: int) -> None:
        super().__init__(11)
        self.room = room
        self.tried: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.tried.append(len(image))
        if len(image) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(image)


@pytest.mark.parametrize(
    ("flip", "room", "tried"),
    [(False, 2, [5, 2, 2, 1, 2, 2, 1]), (True, 4, [10, 5] + 10 * [2]), (True, 1, [10, 5, 2] + 20 * [1])],
)
def test_without_memory_it_goes_on_in_halves(
    flip: bool, room: int, tried: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    network = Crowded(room)
    whole, crowded = (EvaluationModule(kind, CAMVID11, flip=flip).eval() for kind in (TinyNetwork(11), network))
    with torch.no_grad():
        for module in (whole, crowded):
            for _ in range(2):
                module.validation_step(collate_eval(samples()), 0)
    assert torch.equal(whole.confusion.compute(), crowded.confusion.compute())
    assert network.tried == tried
    count = 10 if flip else 5
    line = f"not enough memory for a batch of {count} images; continuing with {count // 2} (a smaller evaluation.batch"
    assert caplog.text.count(line) == 1
    assert "batch of ripu.evaluate and ripu.replay" in caplog.text


@pytest.mark.parametrize(("flip", "tried"), [(False, [5, 2, 1]), (True, [10, 5, 2, 1])])
def test_one_image_without_memory_is_the_library_s_error(flip: bool, tried: list[int]) -> None:
    network = Crowded(0)
    module = EvaluationModule(network, CAMVID11, flip=flip).eval()
    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError):
        module.validation_step(collate_eval(samples()), 0)
    assert network.tried == tried


@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_without_a_readable_file_measures_nothing(flip: bool) -> None:
    module = EvaluationModule(TinyNetwork(11), CAMVID11, flip=flip).eval()
    nothing = {**samples()[0], "fault": "damaged"}
    assert module.test_step(collate_eval([nothing]), 0) == []
