"""Devices that this machine does not have are refused before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ripu.io.errors import ConfigError
from ripu.run import device
from running import spec, train_here


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu: this machine has no such device"):
        device.check_device("gpu")
    device.check_device("auto")
    device.check_device("auto", devices=2)
    with pytest.raises(ConfigError, match=r"devices=\[0\] .*auto on a machine without a GPU.* number of processes"):
        device.check_device("auto", devices=[0])


@pytest.mark.parametrize(
    ("devices", "fits"),
    [("auto", True), (-1, True), (2, True), ([0, 1], True), ("0,1", True), (3, False), ([2], False)],
)
def test_devices_beyond_those_there_are_refused(devices: Any, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if fits:
        device.check_device("auto", devices=devices)
        return
    with pytest.raises(ConfigError, match=r"this machine has only 2 device"):
        device.check_device("auto", devices=devices)


def test_every_command_knows_the_accelerators_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(device, "check_device", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    given = ("auto", "cpu", "gpu", "cuda", "mps")
    assert [str(device.make_device(one)) for one in given] == ["cuda", "cpu", "cuda", "cuda", "mps"]
    with pytest.raises(ConfigError, match="accelerator=tpu is not allowed"):
        device.make_device("tpu")


def test_fewer_validation_images_than_processes_are_refused() -> None:
    three = spec("trainer.accelerator=cpu", "trainer.devices=3")
    device.check_shares(three, 3)
    said = r"trainer\.devices=3 .* are 3 processes, .* there are only 2; use 2 processes at most"
    with pytest.raises(ConfigError, match=said):
        device.check_shares(three, 2)


@pytest.mark.parametrize("more", [(), ("dry_run=true",)])
def test_they_are_refused_before_anything_is_written(more: tuple[str, ...], data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are only 3; use 3 processes at most"):
        train_here(data_root, tmp_path / "run", "trainer.devices=4", *more)
    assert not (tmp_path / "run").exists()
