"""Stages 2 and 3 of ProDA: terms against literal loops, and the network that a run learns from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reference import losses as reference
from reference.self_training import softmax
from ripu.config.checks import checked_spec
from ripu.io.errors import ConfigError
from ripu.methods import ProdaDistil
from ripu.run.assembly.network import check_start, make_module
from ripu.run.lifecycle import open_run
from running import compose, failing_at, same_weights, spec, tiny, train_here, untrained_checkpoint, weights
from students import CLASSES, Network, Student, make_batch, numpy

WORDS = ("setting=unlabelled", "method=proda_distil")


def taught(method: ProdaDistil) -> Any:
    """A student whose previous stage is another, surer network, which normalises images in its own way."""
    student = Student(method)
    torch.manual_seed(7)
    before = Network()
    before.mean, before.std = (0.1, 0.4, 0.2), (0.3, 0.5, 0.25)
    with torch.no_grad():
        before.head.weight *= 8.0
    student.kept.begin(before)
    return student


def test_the_terms_are_the_formulas() -> None:
    method = ProdaDistil(threshold=0.8, distillation_weight=0.5)
    student, batch = taught(method), make_batch(3)
    mean, std = np.array([0.1, 0.4, 0.2]), np.array([0.3, 0.5, 0.25])
    seen = (numpy(batch["image"]) / 255.0 - mean[:, None, None]) / std[:, None, None]
    logits = numpy(student(batch["image"]))
    before = numpy(student.kept.network(torch.from_numpy(seen).float()))
    label, far = np.full((2, 32, 40), 255, dtype=np.uint8), []
    for b, row, column in np.ndindex(*label.shape):
        t, p = softmax(before[b])[:, row, column], softmax(logits[b])[:, row, column]
        if max(t) >= 0.8:
            label[b, row, column] = int(np.argmax(t))
        far.append(sum(one * math.log(one / other) for one, other in zip(t, p, strict=True)))
    assert 0.1 < (label != 255).mean() < 0.9
    terms = method.target_terms(student, batch)
    assert float(terms["pseudo"].detach()) == pytest.approx(reference.supervised(logits, label, "labelled", 0.0), 1e-4)
    assert float(terms["distillation"].detach()) == pytest.approx(0.5 * sum(far) / len(far), 1e-4)
    torch.stack(list(terms.values())).sum().backward()
    assert student.body.weight.grad is not None
    assert all(one.grad is None for one in student.kept.parameters())


def test_without_sure_pixels_only_the_probabilities_count() -> None:
    method = ProdaDistil(threshold=1.0)
    student, batch = Student(method), make_batch(1)
    with torch.no_grad():
        student.kept.network.head.weight.zero_()
        student.kept.network.head.bias.zero_()
    terms = method.target_terms(student, batch)  # type: ignore[arg-type]
    assert float(terms["pseudo"].detach()) == 0.0
    log_p = student(batch["image"]).log_softmax(dim=1)
    wanted = -math.log(CLASSES) - float(log_p.detach().double().mean())
    assert float(terms["distillation"].detach()) == pytest.approx(wanted, rel=1e-4)


def trained_checkpoint(folder: Path) -> Path:
    """A checkpoint whose weights are not those that every run begins with."""
    path = untrained_checkpoint(folder)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["network.head.weight"] += 0.25
    torch.save(content, path)
    return path


def test_the_previous_stage_is_the_network_of_the_checkpoint_and_stays(tmp_path: Path) -> None:
    path = trained_checkpoint(tmp_path)
    made = make_module(spec(*tiny(Path("nowhere"), tmp_path / "run", *WORDS, f"method.previous={path}")))
    state = torch.load(path, weights_only=True)["state_dict"]
    kept: Any = made.kept
    before = {f"network.{name}": value for name, value in kept.network.state_dict().items()}
    assert before.keys() == {name for name in state if name.startswith("network.")}
    assert all(torch.equal(before[name], state[name]) for name in before)
    assert any(not torch.equal(one, before[f"network.{name}"]) for name, one in made.network.state_dict().items())
    assert not made.train().kept.network.training  # type: ignore[union-attr]
    assert not any(one.requires_grad for one in kept.parameters())


def test_a_network_that_does_not_fit_is_refused_with_the_key(tmp_path: Path) -> None:
    path = untrained_checkpoint(tmp_path, "dataset=streets")
    made = spec(*tiny(Path("nowhere"), tmp_path / "run", *WORDS, f"method.previous={path}"))
    with pytest.raises(ConfigError, match=r"(?s)^method\.previous: .*of another shape"):
        check_start(made)


def test_a_stage_without_its_predecessor_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    words = [
        "dataset=camvid",
        "method=proda_distil",
        f"paths.output_dir={tmp_path / 'run'}",
        f"method.previous={tmp_path / 'one'}",
    ]
    made = checked_spec(compose(*words), words=words)
    command = rf"make it with python -m ripu\.train dataset=camvid method=proda paths\.output_dir={tmp_path}/one"
    with pytest.raises(ConfigError, match=f"{command}$"), open_run(made):
        pass
    assert not (tmp_path / "run").exists()
    (tmp_path / "one").mkdir()  # it was begun
    with pytest.raises(ConfigError, match=rf"{command}, or finish that run \(resume=true\)$"):
        check_start(made)


def test_a_chain_of_stages_and_a_resumed_run_without_the_file(data_root: Path, tmp_path: Path) -> None:
    two, three, again = tmp_path / "two", tmp_path / "three", tmp_path / "again"
    first = trained_checkpoint(tmp_path)
    train_here(data_root, two, *WORDS, f"method.previous={first}")
    more = (*WORDS, "checkpoint.every_steps=1")
    train_here(data_root, three, *more, f"method.previous={two}")
    own, kept = weights(two), weights(three)
    names = [name for name in own if name.startswith("network.")]
    assert all(torch.equal(kept[f"kept.{name}"], own[name]) for name in names)
    copied = tmp_path / "copy.ckpt"
    copied.write_bytes((two / "checkpoints" / "final.ckpt").read_bytes())
    with failing_at(4):
        train_here(data_root, again, *more, f"method.previous={copied}")
    copied.unlink()
    train_here(data_root, again, *more, f"method.previous={copied}", "resume=true")
    assert same_weights(three, again)
