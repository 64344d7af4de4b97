from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ripu.datasets.taxonomy import CITYSCAPES16, CITYSCAPES19, VOID, Taxonomy
from ripu.training.metrics import ConfusionMatrix, scores_from_confusion

THREE = Taxonomy("three", ("a", "b", "c"), ((0, 0, 0),) * 3, {0: 0, 1: 1, 2: 2}, {"two": ("a", "b")})


def confusion_of(truth: np.ndarray, prediction: np.ndarray, classes: int) -> torch.Tensor:
    table = torch.zeros(classes, classes, dtype=torch.int64)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != VOID:
            table[t, p] += 1
    return table


def test_iou_matches_a_literal_count() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 12, (3, 20, 30))  # classes 12.. occur nowhere
    truth[rng.random(truth.shape) < 0.1] = VOID
    prediction = np.where(rng.random(truth.shape) < 0.6, truth % 200, rng.integers(0, 12, truth.shape)) % 12
    scores = scores_from_confusion(confusion_of(truth, prediction, 19), CITYSCAPES19)
    valid = truth != VOID
    values = []
    for train_id, name in enumerate(CITYSCAPES19.class_names):
        both = int((valid & (truth == train_id) & (prediction == train_id)).sum())
        either = int((valid & ((truth == train_id) | (prediction == train_id))).sum())
        if either == 0:
            assert scores.per_class_iou[name] is None
        else:
            values.append(100 * both / either)
            assert scores.per_class_iou[name] == pytest.approx(values[-1], abs=1e-9)
    assert len(values) == 12
    assert scores.miou == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert scores.pixel_accuracy == pytest.approx(100 * (truth == prediction)[valid].mean(), abs=1e-9)


def test_the_running_matrix_leaves_void_out() -> None:
    truth, prediction = torch.tensor([[0, 1, 255, 2]]), torch.tensor([[0, 2, 1, 2]])
    metric = ConfusionMatrix(3)
    metric.update(prediction, truth)
    assert torch.equal(metric.compute(), confusion_of(truth.numpy(), prediction.numpy(), 3))


def test_one_matrix_over_the_set_is_not_a_mean_over_images() -> None:
    table = torch.tensor([[1, 1, 0], [0, 8, 0], [0, 0, 0]])
    scores = scores_from_confusion(table, THREE)
    assert scores.per_class_iou == {"a": pytest.approx(50.0), "b": pytest.approx(800 / 9), "c": None}
    assert scores.miou == pytest.approx((50 + 800 / 9) / 2)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    scores = scores_from_confusion(torch.tensor([[3, 0, 1], [0, 0, 0], [0, 0, 0]]), THREE)
    assert scores.per_class_iou == {"a": 75.0, "b": None, "c": 0.0}
    assert scores.miou == 37.5
    assert scores.subsets == {"two": 75.0}


def test_thirteen_of_sixteen_classes() -> None:
    table = torch.eye(16, dtype=torch.int64) * 10
    wall = CITYSCAPES16.class_names.index("wall")
    table[wall] = torch.eye(16, dtype=torch.int64)[0] * 4  # every wall taken for road
    scores = scores_from_confusion(table, CITYSCAPES16)
    assert scores.per_class_iou["wall"] == 0.0
    assert scores.subsets["mIoU13"] == pytest.approx((12 * 100 + 1000 / 14) / 13)
    assert scores.miou == pytest.approx((14 * 100 + 1000 / 14) / 16)


def test_nothing_labelled_is_not_a_number() -> None:
    scores = scores_from_confusion(torch.zeros(3, 3, dtype=torch.int64), THREE)
    assert math.isnan(scores.miou)
    assert math.isnan(scores.pixel_accuracy)
    assert set(scores.per_class_iou.values()) == {None}


def test_large_counts_stay_exact() -> None:
    huge = 2**40 + 1
    scores = scores_from_confusion(torch.tensor([[huge, 1, 0], [0, huge, 0], [0, 0, 0]]), THREE)
    assert scores.per_class_iou["a"] == pytest.approx(100 * huge / (huge + 1), abs=1e-9)
