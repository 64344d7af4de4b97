"""The Poincare ball of curvature -c by its definitions, in float64 (Ganea et al. 2018)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def add(x: Vector, y: Vector, c: float) -> Vector:
    """The Moebius sum of two points."""
    between, own, other = float(x @ y), float(x @ x), float(y @ y)
    above = (1 + 2 * c * between + c * other) * x + (1 - c * own) * y
    return above / (1 + 2 * c * between + c * c * own * other)


def from_origin(v: Vector, c: float) -> Vector:
    """The exponential map at the origin."""
    length = math.sqrt(float(v @ v))
    return v * 0.0 if length == 0.0 else math.tanh(math.sqrt(c) * length) * v / (math.sqrt(c) * length)


def distance(x: Vector, y: Vector, c: float) -> float:
    gap = add(-x, y, c)
    return 2 / math.sqrt(c) * math.atanh(math.sqrt(c) * math.sqrt(float(gap @ gap)))


def class_logit(x: Vector, p: Vector, a: Vector, c: float) -> float:
    """The logit of a class with the point p and the normal a of its hyperplane."""
    root, length, moved = math.sqrt(c), math.sqrt(float(a @ a)), add(-p, x, c)
    conformal = 2 / (1 - c * float(p @ p))
    ratio = 2 * root * float(moved @ a) / ((1 - c * float(moved @ moved)) * length)
    return conformal * length / root * math.asinh(ratio)
