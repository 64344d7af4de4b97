"""Presets for graphics cards: they fit a step to a card and leave the optimisation alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ripu.config.checks import checked_spec
from ripu.config.validate import config_dir
from ripu.io.errors import ConfigError
from ripu.models.deeplabv3plus import SeparableASPPHead
from ripu.run.assembly.network import make_module
from running import compose, same_weights, spec_of, train_here

PRESETS = sorted(path.stem for path in (Path(config_dir()) / "hardware").glob("*.yaml"))
MODELS = sorted(path.stem for path in (Path(config_dir()) / "model").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("dataset", "model"),
    [*((dataset, "deeplabv2_r101") for dataset in ("gtav", "synthia")), *(("camvid", model) for model in MODELS)],
)
def test_the_optimisation_stays_what_it_is(preset: str, dataset: str, model: str) -> None:
    words = [f"dataset={dataset}", f"model={model}", "paths.output_dir=run"]
    plain, fitted = compose(*words), compose(*words, f"hardware={preset}")
    checked_spec(fitted)
    for domain in ("source_batch", "target_batch"):
        assert fitted.data[domain] * fitted.trainer.accumulate == plain.data[domain] * plain.trainer.accumulate
    assert spec_of(fitted).plan == spec_of(plain).plan
    for key in ("optimizer", "objective", "protocol", "model", "mode", "budget", "setting"):
        assert fitted[key] == plain[key]
    assert (fitted.data.source_size, fitted.data.target_size) == (plain.data.source_size, plain.data.target_size)


def test_a_row_of_the_paper_and_the_command_line_win() -> None:
    cfg = compose("experiment=table1/ra", "hardware=gpu11gb", "trainer.precision=16-mixed", "paths.output_dir=run")
    assert (cfg.trainer.precision, cfg.trainer.accumulate, cfg.data.source_batch) == ("16-mixed", 2, 1)


def test_batches_that_cannot_be_dealt_are_refused() -> None:
    cfg = compose("hardware=gpu11gb", "dataset.recipe.target_batch=3", "paths.output_dir=run")
    with pytest.raises(ValueError, match=r"data\.target_batch"):
        checked_spec(cfg)


def test_single_images_need_a_network_that_can_take_them() -> None:
    words = ["dataset=camvid", "hardware=gpu11gb", "model=smp", "model.encoder=resnet18", "model.weights=null"]
    cfg = compose(*words, "paths.output_dir=run")
    with pytest.raises(ConfigError, match=r"data\.source_batch=1: .*model\.freeze_batchnorm=all"):
        make_module(spec_of(cfg))
    cfg = compose(*words, "model.freeze_batchnorm=all", "paths.output_dir=run")
    network = make_module(spec_of(cfg)).network
    assert all(int(one) == 0 for name, one in network.state_dict().items() if name.endswith("num_batches_tracked"))


def test_the_published_head_treats_every_image_alone() -> None:
    """Its norms are frozen, the one behind image pooling too: a micro-batch of one is what it would be in a batch."""
    torch.manual_seed(0)
    head = SeparableASPPHead(5).train()
    head.decoder[2].p = 0.0  # dropout
    low, features = torch.randn(2, 256, 12, 16), torch.randn(2, 2048, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(head(low, features)[:1], head(low[:1], features[:1]), rtol=1e-4, atol=1e-4)


def test_a_preset_runs(plain_run: Path, data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "small", "hardware=gpu11gb", "data.num_workers=0")
    for preset in PRESETS[1:]:
        train_here(data_root, tmp_path / preset, f"hardware={preset}", "data.num_workers=0")
        assert same_weights(tmp_path / preset, plain_run)
    assert not same_weights(tmp_path / "small", plain_run)


def test_the_command_line_knows_the_presets() -> None:
    from ripu.config.command_line import check_command_line

    assert check_command_line(["hardware=gpu24gb", "dataset=gtav"], "train", checked_spec) == []
    with pytest.raises(ConfigError, match=r"hardware=gpu12gb is unknown.*gpu11gb, gpu24gb, gpu80gb"):
        check_command_line(["hardware=gpu12gb"], "train", checked_spec)
