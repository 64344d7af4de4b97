"""The images of a rank in a round, and the forward passes that they go through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ripu.acquisition import Features
from ripu.io.errors import ConfigError, is_out_of_memory
from ripu.loading.order import batches_of_rank
from ripu.loading.samples import of_one_size
from ripu.selection.ranks import Ranks, SelectionError
from ripu.training.fitting_parts import FittingParts

Loader = Callable[[list[int]], DataLoader[Any]]
"""Makes a loader over the images of the given indices, in that order."""


Network = Callable[[Tensor], tuple[Tensor, Features | None]]
"""uint8 images (B, bands, h, w) -> logits (B, C, h, w), and features if the score needs them."""


def reading(
    network: Callable[[Tensor], Tensor],
    with_features: Callable[[Tensor], tuple[Tensor, Features]] | None,
    *,
    needs_features: bool,
) -> Network:
    """Return a network with its features if they are needed.

    Raises:
        ConfigError: They are, and only its logits are known.
    """
    if not needs_features:
        return lambda image: (network(image), None)
    if with_features is None:
        raise ConfigError(
            "the score needs features of the network, and only its logits are known; use another score "
            "(acquisition=...)"
        )
    return with_features


@dataclass(frozen=True)
class Output:
    """The output of the network for one image.

    Attributes:
        logits: (1, C, h, w).
        features: Those of this image, for scores that need them.
    """

    logits: Tensor
    features: Features | None = None

    def record(self, stream: Any) -> None:
        """Keep the memory until what a stream of the same device has to do by the time of its release is done."""
        for tensor in (self.logits, *(() if self.features is None else (self.features.values,))):
            if tensor.is_cuda:
                tensor.record_stream(stream)


@dataclass(frozen=True)
class Labelled:
    """The source of a run, for scores that know it: ``count`` images; batches of the loader contain ``label``."""

    count: int
    loader: Loader


@dataclass(frozen=True)
class Source:
    """The images of this rank, and the network that they go through."""

    pool: Loader
    images: list[int]
    network: Network
    device: torch.device

    def batches(self) -> Iterator[tuple[dict[str, Any], Iterator[Output]]]:
        """Yield the batches of the pool with the outputs of their images, on a GPU one batch ahead."""
        forward = _Forward(self.network, self.device)
        if self.device.type == "cuda":
            return one_ahead(self.pool(self.images), forward, self.device)
        return ((batch, forward(batch)) for batch in self.pool(self.images))


def one_ahead(
    batches: Iterable[dict[str, Any]], forward: Callable[[dict[str, Any]], Iterator[Output]], device: torch.device
) -> Iterator[tuple[dict[str, Any], Iterator[Output]]]:
    """Yield batches with their outputs, while the device computes those of the next batch on a stream of its own.

    Copies and forward passes overlap with what the caller does with a batch; outputs of two batches are in memory. The
    work that the caller queues on its stream waits for the outputs that it has, and not for those of the next batch.
    """
    ahead: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    own = torch.cuda.current_stream(device)
    ahead.wait_stream(own)  # the weights are those after the last step
    held: tuple[dict[str, Any], list[Output]] | None = None
    for batch in batches:
        if held is not None:
            own.wait_stream(ahead)  # for what is queued by now
        with torch.cuda.stream(ahead):
            outputs = list(forward(batch))
        for output in outputs:
            output.record(own)
        if held is not None:
            yield held[0], iter(held[1])
        held = batch, outputs
    if held is not None:
        own.wait_stream(ahead)
        yield held[0], iter(held[1])


@dataclass(frozen=True)
class _Forward:
    """Runs batches through the network; halves them once memory runs out."""

    network: Network
    device: torch.device
    _parts: FittingParts = field(default_factory=FittingParts)

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[Output]:
        """Yield the output of each image."""
        if "logits" in batch:
            for logits in batch["logits"]:
                yield Output(logits[None].to(self.device))
            return
        for images in of_one_size(batch["image"]):
            yield from self._run(images)

    def _run(self, images: Tensor) -> Iterator[Output]:
        try:
            for logits, features in self._parts(images, self._network):
                for at in range(len(logits)):
                    yield Output(logits[at : at + 1], None if features is None else features.of_image(at))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise SelectionError(
                "there is not enough memory on the device for the forward pass of one image; give a smaller "
                "data.target_size, or trainer.precision=bf16-mixed"
            ) from error

    def _network(self, images: Tensor) -> tuple[Tensor, Features | None]:
        with torch.no_grad():
            return self.network(images.to(self.device, non_blocking=True))


def share_of_rank(images: list[int], pool: Loader, ranks: Ranks) -> list[int]:
    """Return those of the images that are this rank's; see :func:`ripu.loading.order.batches_of_rank`."""
    size = getattr(pool(images), "batch_size", None) or 1
    return batches_of_rank(images, size, ranks.rank, ranks.world_size)
