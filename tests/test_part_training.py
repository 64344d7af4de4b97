"""Runs that train a part of their network, from a file of weights, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ripu.config.checks import checked_spec
from ripu.io.errors import ConfigError
from ripu.models.vit import ViTNetwork
from ripu.run.assembly.network import check_start
from running import ROUNDS, compose, label_bytes, no_checkpoint_of, same_weights, spec, tiny, train_here, weights

SIZE = ("+model.embed_dim=48", "+model.depth=4", "+model.num_heads=3")
NETWORK = ("model=dinov2_small", "model._target_=ripu.models.vit.ViTNetwork", *SIZE, "evaluation.pictures=0")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of an encoder as Meta's file has them."""
    torch.manual_seed(3)
    encoder = ViTNetwork(2, "vit_small_patch14_dinov2", embed_dim=48, depth=4, num_heads=3).encoder
    path = tmp_path_factory.mktemp("weights") / "dinov2.pth"
    torch.save(encoder.state_dict() | {"mask_token": torch.zeros(1, 48)}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("part", ["lora", "none"])
def test_an_interrupted_run_ends_as_it_would_have(part: str, file: Path, data_root: Path, tmp_path: Path) -> None:
    words = (*NETWORK, f"model.weights={file}", f"model.train_encoder={part}", "checkpoint.every_steps=1")
    train_here(data_root, tmp_path / "whole", *words)
    with no_checkpoint_of(5):  # of the second round
        train_here(data_root, tmp_path / "run", *words)
    train_here(data_root, tmp_path / "run", *words, "resume=true")
    assert same_weights(tmp_path / "whole", tmp_path / "run")
    assert label_bytes(tmp_path / "whole") == label_bytes(tmp_path / "run")
    stored, trained = torch.load(file, weights_only=True), weights(tmp_path / "run")
    kept = {key: value for key, value in trained.items() if key.startswith("network.encoder.") and "lora_" not in key}
    assert all(torch.equal(value, stored[key.removeprefix("network.encoder.")]) for key, value in kept.items())
    assert any("lora_up" in key and value.any() for key, value in trained.items()) == (part == "lora")
    with pytest.raises(ConfigError, match=f"model.train_encoder: {part} -> all"):
        train_here(data_root, tmp_path / "run", *words, "model.train_encoder=all", "resume=true")


def test_files_of_weights_are_read_before_any_data(file: Path, tmp_path: Path) -> None:
    base = tiny(Path("nowhere"), tmp_path / "run", *ROUNDS, *NETWORK)
    check_start(spec(*base, f"model.weights={file}", "model.train_encoder=lora"))
    with pytest.raises(ConfigError, match=r"missing\.pth does not exist"):
        check_start(spec(*base, "model.weights=missing.pth"))
    with pytest.raises(ConfigError, match=r"does not fit VisionTransformer(?s:.*)of another shape: cls_token"):
        check_start(spec(*base, f"model.weights={file}", "model.embed_dim=96"))
    with pytest.raises(ConfigError, match=r"model\.train_encoder=half"):
        checked_spec(compose(*base, "model.train_encoder=half"))


def test_random_weights_are_not_kept_but_those_of_a_checkpoint_are(file: Path, tmp_path: Path) -> None:
    base = tiny(Path("nowhere"), tmp_path / "run", *ROUNDS, *NETWORK, "model.weights=null", "model.train_encoder=none")
    with pytest.raises(ConfigError, match=r"model\.train_encoder=none keeps .* model\.weights=null makes them random"):
        check_start(spec(*base))
    content = {f"network.{key}": value for key, value in ViTNetwork(
        11, "vit_small_patch14_dinov2", embed_dim=48, depth=4, num_heads=3
    ).state_dict().items()}  # fmt: skip
    torch.save({"state_dict": content}, tmp_path / "final.ckpt")
    check_start(spec(*base, f"model.checkpoint={tmp_path / 'final.ckpt'}"))
