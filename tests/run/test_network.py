"""Networks of runs: weights of other runs and of the authors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ripu.evaluate import evaluate
from ripu.io.errors import ConfigError
from ripu.models.checkpoints import read_checkpoint, to_released
from ripu.run.assembly.network import check_start, make_network
from running import ROUNDS, call, compose, environment, same_weights, spec, spec_of, tiny, train_here, weights
from tiny import TinyDeepLab

FAST = ("evaluation.pictures=0", "trainer.max_steps=2")


@pytest.fixture(scope="module")
def source_run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source-only run; for reading only."""
    folder = tmp_path_factory.mktemp("start") / "run"
    train_here(data_root, folder, "setting=source_only", *FAST)
    return folder


def still(*extra: str) -> tuple[str, ...]:
    """Options of a run that changes its weights by nothing that float32 can hold."""
    return ("setting=source_only", "optimizer.learning_rate=1e-30", "optimizer.weight_decay=0", *FAST, *extra)


def trained(run: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights(run).items() if "running" not in name and "num_batches" not in name}


def test_a_run_starts_from_another_ones_weights(source_run: Path, data_root: Path, tmp_path: Path) -> None:
    path = source_run / "checkpoints" / "final.ckpt"
    train_here(data_root, tmp_path / "run", f"model.checkpoint={path}", *still())
    before, after = trained(source_run), trained(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    train_here(data_root, tmp_path / "fresh", *still())
    assert not torch.equal(trained(tmp_path / "fresh")["network.head.weight"], before["network.head.weight"])


@pytest.mark.parametrize("setting", ["active", "fully_supervised"])
def test_every_setting_may_start_from_weights(setting: str, source_run: Path, data_root: Path, tmp_path: Path) -> None:
    path = source_run / "checkpoints" / "final.ckpt"
    words = () if setting == "active" else (f"setting={setting}",)
    one, other = tmp_path / "one", tmp_path / "other"
    train_here(data_root, one, f"model.checkpoint={path}", "evaluation.pictures=0", *words)
    train_here(data_root, other, "evaluation.pictures=0", *words)
    assert not same_weights(one, other)


def test_resuming_needs_the_file_no_more(source_run: Path, data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "start.ckpt"
    path.write_bytes((source_run / "checkpoints" / "final.ckpt").read_bytes())
    words = ("setting=source_only", f"model.checkpoint={path}", *FAST)
    train_here(data_root, tmp_path / "run", *words)
    before = weights(tmp_path / "run")
    path.unlink()
    train_here(data_root, tmp_path / "run", *words, "resume=true")
    after = weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    done = call(
        "ripu.evaluate", f"checkpoint={tmp_path / 'run'}", f"paths.output_dir={tmp_path / 'out'}", "accelerator=cpu",
        "num_workers=0", "save_predictions=false", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_released_layout_is_read_by_the_real_command(data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = TinyDeepLab(11)
    torch.save(to_released(network, 40_000), tmp_path / "released.pth")
    words = tiny(
        data_root, tmp_path / "run", *still("model=deeplabv2_r101", f"model.checkpoint={tmp_path}/released.pth")
    )
    words = [word.replace("tiny.TinyNetwork", "tiny.TinyDeepLab") for word in words]
    done = call("ripu.train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = weights(tmp_path / "run")
    assert all(torch.equal(value, after[f"network.{name}"]) for name, value in network.state_dict().items())


@pytest.mark.slow
def test_what_does_not_fit_is_listed(source_run: Path, data_root: Path, tmp_path: Path) -> None:
    path = source_run / "checkpoints" / "final.ckpt"
    words = tiny(data_root, tmp_path / "run", "model=deeplabv2_r101", f"model.checkpoint={path}")
    words = [word.replace("tiny.TinyNetwork", "tiny.TinyDeepLab") for word in words]
    done = call("ripu.train", *words, *ROUNDS, cwd=tmp_path)
    assert done.returncode == 1
    assert f"error: model.checkpoint: {path} does not fit TinyDeepLab" in done.stderr
    assert "missing from the file: backbone.conv1.weight" in done.stderr
    assert "not in the network: body.weight" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["train.log"]


def test_a_backbone_alone_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save(TinyDeepLab(3).backbone.state_dict(), tmp_path / "resnet.pth")
    cfg = compose(
        "dataset=camvid", "model=deeplabv2_r101", "model._target_=tiny.TinyDeepLab",
        f"model.checkpoint={tmp_path}/resnet.pth",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"contains no head; start the backbone from it with model\.weights="):
        check_start(spec_of(cfg))
    cfg.model.checkpoint = str(tmp_path / "nothing.pth")
    with pytest.raises(ConfigError, match=r"model\.checkpoint: .*nothing\.pth does not exist"):
        check_start(spec_of(cfg))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deeplabv2_r101", "deeplabv3plus_r101"])
def test_a_run_of_the_published_network_is_exported_and_read_again(data_root: Path, tmp_path: Path, model: str) -> None:
    def train(run: Path, *more: str) -> None:
        words = [word for word in tiny(data_root, run, *still(f"model={model}", *more)) if "_target_" not in word]
        done = call("ripu.train", *words, "trainer.max_steps=1", cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    train(tmp_path / "first", "model.weights=null")
    released, taken = tmp_path / "released.pth", tmp_path / "taken.ckpt"

    def script(name: str, *words: str) -> None:
        path = Path(__file__).parents[2] / "scripts" / f"{name}_checkpoint.py"
        subprocess.run([sys.executable, str(path), *words], check=True, env=environment(), cwd=tmp_path)

    script("export", str(tmp_path / "first" / "checkpoints" / "final.ckpt"), str(released))
    words = ["dataset=camvid", f"model={model}", f"paths.data_root={data_root}"]
    script("import", str(released), str(taken), *words, "data.source_size=[32,48]", "data.target_size=[32,48]")
    words = [f"checkpoint={taken}", f"paths.output_dir={tmp_path}/measured", "accelerator=cpu", "num_workers=0"]
    measured = evaluate(compose(*words, config_name="evaluate"))
    results = json.loads((tmp_path / "first" / "results.json").read_text())
    assert measured["per_class_iou"] == pytest.approx(results["per_class_iou"], abs=1e-6)
    assert set(read_checkpoint(released)) == {"feature_extractor", "classifier", "iteration"}
    train(tmp_path / "second", f"model.checkpoint={released}")  # model.weights=imagenet is not fetched
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.allclose(first[name], second[name], rtol=0.0, atol=1e-20) for name in first)


def test_initial_weights_depend_on_the_seed_and_on_nothing_that_came_before() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(3)  # as an earlier job of a sweep may have done
        cfg = compose("dataset=camvid", "model.weights=null", f"seed={seed}")
        network = make_network(spec_of(cfg))
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    before = torch.get_rng_state()
    first = weights(0)
    torch.set_rng_state(before)
    assert torch.equal(first, weights(0))
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.architecture=DeepLabV4", "architecture 'DeepLabV4' is unknown"),
        ("model.encoder=resnet1001", "resnet1001"),
    ],
)
def test_a_network_that_is_not_there_is_refused_before_data_are_generated(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_start(spec("dataset=camvid", word))
