"""Inputs for the fused kernels, and what Triton's interpreter needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reference import picking
from ripu.functional import fused, label_dtype

HAS_GPU = torch.cuda.is_available()


def use_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes as long for a program of a hundred pixels as for one of a thousand."""
    if HAS_GPU:
        return
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name, sizes in {
        "maps": {"_BLOCK": 2048},
        "windows": {"_BLOCK": 1024, "_ROW": 16, "_ROW_LENGTH": 128},
        "picks": {"_BLOCK": 512, "_SAMPLES": 1024},
    }.items():
        module = pytest.importorskip(f"ripu.functional.fused.cuda.{name}")
        for size, value in sizes.items():
            monkeypatch.setattr(module, size, value)


def noise(*shape: int, seed: int = 0, scale: float = 4.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def smooth(num_classes: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.interpolate(noise(1, num_classes, 5, 6, seed=seed), (height, width), mode="bicubic")


def label_of(num_classes: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    coarse = torch.randint(num_classes, (2, 1, 3, 4), generator=torch.Generator().manual_seed(seed))
    label = torch.nn.functional.interpolate(coarse.float(), size)[:, 0]
    label[0, 0, 0] = num_classes - 1
    return label.to(label_dtype(num_classes))


def expected_picks(score: Tensor, *rule: Any) -> list[list[int]]:
    num_picks, radius, available, tie = rule
    arrays = [None if one is None else one.cpu().numpy() for one in (available, tie)]
    return [list(one) for one in picking.greedy_picks(score.cpu().numpy(), num_picks, radius, *arrays)]


def problem(kind: str, height: int, width: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return scores, availability and tie breaks."""
    generator = torch.Generator().manual_seed(len(kind))
    score = smooth(1, height, width, seed=len(kind))[0, 0]
    tie = torch.randint(3, (height, width), generator=generator).float() - 1.0
    mask = torch.rand(height, width, generator=generator) < 0.6
    if kind == "plateaus":
        return score.div(3).round(), mask, tie
    if kind == "one plateau":
        return torch.zeros_like(score), None, None
    if kind == "signed zeros":
        return torch.where(mask, 0.0, -0.0), None, tie * 0.0
    if kind == "infinite":
        score[mask] = -torch.inf
        score[:2, ::5] = torch.inf
        return score, None, torch.where(tie > 0, torch.inf, -torch.inf)
    if kind == "nothing left":
        return torch.full_like(score, -torch.inf), mask, tie
    if kind == "nothing available":
        return score, torch.zeros_like(mask), None
    return score, mask if kind == "masked" else None, tie if kind == "masked" else None


KINDS = ["smooth", "masked", "plateaus", "one plateau", "signed zeros", "infinite", "nothing left", "nothing available"]


def network_output(kind: str) -> Tensor:
    """Return logits (1, 19, 320, 640), ``trained`` or ``piecewise smooth``."""
    if kind == "trained":
        logits = torch.nn.functional.interpolate(noise(1, 19, 20, 40), (320, 640), mode="bicubic")
        return logits + noise(1, 19, 320, 640, seed=1, scale=0.3)
    coarse = torch.randint(19, (1, 1, 8, 16), generator=torch.Generator().manual_seed(0))
    label = torch.nn.functional.interpolate(coarse.float(), (320, 640)).long()[:, 0]
    return torch.nn.functional.one_hot(label, 19).permute(0, 3, 1, 2) * 8.0


@pytest.fixture(autouse=True, params=["fused", "plain"])
def with_and_without_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported into a file, run every test of it by the kernels, where they are used, and by the plain code."""
    if request.param == "plain":
        monkeypatch.setenv(fused.SWITCH, "0")
    elif not fused.is_used(torch.zeros(1)):
        pytest.skip("the kernels for CPUs need the extra fused")
