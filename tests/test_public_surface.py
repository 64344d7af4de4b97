"""The public Python interface: its names and signatures change only on purpose."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import ripu
from running import environment

SIGNATURES = {
    "region_impurity": "(pred_label_BHW, num_classes, radius, *, epsilon=0.0)",
    "pixel_entropy": "(logits_BCHW, *, epsilon=0.0)",
    "window_mean": "(x_BHW, radius)",
    "supervised_loss": "(logits, label, *, average='labelled', class_balance=0.0, shape=None, softmax=None)",
    "consistency_loss": "(logits, label, boundary_only=True, *, boundary_detector='neighbors', border='clip', "
    "shape=None, softmax=None)",
    "negative_learning_loss": "(logits, threshold=0.05, *, epsilon=0.0, shape=None, softmax=None)",
    "ripu_score": "(logits, radius, size=None, pixel=False)",
    "greedy_picks": "(score_HW, num_picks, suppress_radius, available=None, tie_break=None)",
    "load": "(trained, device=None)",
    "TargetImage": "(image_id, height, width)",
    "ImagePicks": "(image_id, picks, scores=None, regions=None, digest='')",
    "ImageAnswers": "(image_id, indices, labels)",
    "LabelStore.create": "(path, images, class_names, metadata=None, *, planned_picks=None, exist_ok=False)",
    "LabelStore.open": "(path, *, write=False)",
    "LabelStore.add_round": "(self, spec, records)",
    "LabelStore.append_answers": "(self, answers)",
    "LabelStore.revealed_label": "(self, image_id, num_rounds=None)",
    "LabelStore.revealed_round": "(self, image_id, num_rounds=None)",
}
OTHERS = {"__version__", "LabelStore", "LabelStoreError"}


def signature(value: Callable[..., Any]) -> str:
    """Return a signature without its annotations, which mypy guards."""
    found = inspect.signature(value)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_the_public_names_are_frozen() -> None:
    assert set(ripu.__all__) == {name for name in SIGNATURES if "." not in name} | OTHERS
    assert ripu.__all__ == sorted(ripu.__all__)
    assert set(ripu.__all__) <= set(dir(ripu))
    assert issubclass(ripu.LabelStoreError, ValueError)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_public_signatures_are_frozen(name: str) -> None:
    owner, _, method = name.partition(".")
    value = getattr(ripu, owner)
    assert signature(getattr(value, method) if method else value) == SIGNATURES[name]
    assert inspect.getdoc(value)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ripu' has no attribute 'region_purity'"):
        ripu.region_purity  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import ripu; ripu.__version__", {"torch", "numpy", "importlib.metadata"}),
        ("import ripu; ripu.LabelStore", {"torch", "hydra", "omegaconf", "pytorch_lightning", "cv2"}),
        ("import ripu; ripu.region_impurity", {"hydra", "omegaconf", "pytorch_lightning", "cv2"}),
        ("import ripu; ripu.consistency_loss", {"hydra", "omegaconf", "pytorch_lightning", "cv2"}),
    ],
)
def test_a_name_loads_only_what_it_needs(code: str, heavy: set[str]) -> None:
    check = f"{code}; import sys; loaded = {heavy!r} & set(sys.modules); assert not loaded, loaded"
    done = subprocess.run([sys.executable, "-c", check], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_is_typed() -> None:
    from importlib.resources import files

    assert (files("ripu") / "py.typed").is_file()
