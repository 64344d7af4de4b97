"""The linear layer with a low-rank adapter as a literal float64 loop; nothing shared with the package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def adapted_linear(rows: Array, weight: Array, bias: Array, down: Array, up: Array) -> Array:
    """W x + b + (16 / r) B A x for each row x; W (out, in), A (r, in), B (out, r)."""
    rank = len(down)
    result = np.zeros((len(rows), len(weight)))
    for n, row in enumerate(rows):
        low = [sum(float(down[r, i]) * float(row[i]) for i in range(len(row))) for r in range(rank)]
        for o in range(len(weight)):
            value = float(bias[o]) + sum(float(weight[o, i]) * float(row[i]) for i in range(len(row)))
            result[n, o] = value + 16 / rank * sum(float(up[o, r]) * low[r] for r in range(rank))
    return result
