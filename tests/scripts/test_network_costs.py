"""The table of networks: its figures are those of the networks."""

from __future__ import annotations

import pytest
import torch

import networks
from ripu.models.smp import SmpNetwork


def test_a_row_for_each_part_that_can_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    networks.main(["segformer_b0", "deeplabv3plus_lite0", "--size", "32", "32"])
    _, _, *lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cell[:2] for cell in cells] == [
        ["`segformer_b0`", "all"], ["`segformer_b0`", "lora"], ["`segformer_b0`", "none"],
        ["`deeplabv3plus_lite0`", "all"], ["`deeplabv3plus_lite0`", "none"],
    ]  # fmt: skip
    network = SmpNetwork(19, "Segformer", "mit_b0", None)
    total = sum(parameter.numel() for parameter in network.parameters())
    assert cells[0][2:5] == ["3.3", "0.4", "3.7"]
    assert cells[0][5] == f"{16 * total / 2**20:.0f}"
    memory = [float(cell[6]) for cell in cells[:3]]
    assert memory[0] >= memory[1] >= memory[2]


def test_kept_memory_is_that_of_what_backward_needs() -> None:
    layer = torch.nn.Linear(64, 32)
    network = torch.nn.Sequential(layer, torch.nn.Sigmoid())
    kept, _ = networks.step(network, torch.rand(16, 64))
    # The input, the output of the sigmoid, which the square keeps as well, and nothing of the weights
    assert kept == 4 * (16 * 64 + 16 * 32)


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        networks.main(["unet"])
    assert "unknown networks ['unet']" in capsys.readouterr().err
