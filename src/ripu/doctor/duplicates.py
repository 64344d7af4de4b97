"""Images that occur more than once, within a part or in validation and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ripu.datasets.scenes import SceneDataset
from ripu.doctor.findings import ERROR, WARNING, Finding, listed
from ripu.doctor.reading import SceneFacts

NEAR_LEVELS = 1.5
"""Grey levels (of 255, root mean square over a small copy) below which two images are one, re-encoded."""


def find_copies(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Find images of one part that are equal pixel for pixel."""
    groups: dict[str, list[str]] = {}
    for scene, one in zip(scenes.scenes, facts, strict=True):
        if one.image_pixels:
            groups.setdefault(one.image_pixels, []).append(scene.image_id)
    same = [" = ".join(group[:3]) for group in groups.values() if len(group) > 1]
    remedy = "keep one of each: copies count double in training and in the mean"
    return listed(WARNING, name, "images that occur more than once under different names", remedy, same)


def find_leaks(parts: Mapping[str, SceneDataset], facts: Mapping[str, Sequence[SceneFacts]]) -> list[Finding]:
    """Find validation images that training sees: the same bytes, the same pixels, or nearly."""
    if "val" not in parts:
        return []
    found: list[Finding] = []
    val = _readable(parts["val"], facts["val"])
    remedy = "take them out of one of the two: results on images that were trained on are worthless"
    for name in [part for part in parts if part != "val"]:
        train = _readable(parts[name], facts[name])
        by_bytes = {one.image_bytes: image_id for image_id, one in train}
        by_pixels = {one.image_pixels: image_id for image_id, one in train}
        same_bytes, same_pixels, rest = [], [], []
        for image_id, one in val:
            if one.image_bytes in by_bytes:
                same_bytes.append(f"{image_id} = {by_bytes[one.image_bytes]}")
            elif one.image_pixels in by_pixels:
                same_pixels.append(f"{image_id} = {by_pixels[one.image_pixels]}")
            else:
                rest.append((image_id, one))
        where, also = f"val and {name}", f"validation images that are also in {name}"
        found += listed(ERROR, where, f"{also}, byte for byte", remedy, same_bytes)
        found += listed(ERROR, where, f"{also}, pixel for pixel in another file", remedy, same_pixels)
        what = f"validation images that look the same as one in {name} (re-encoded, or from a fixed camera)"
        found += listed(WARNING, where, what, f"look at them; {remedy}", _near(rest, train))
    return found


def _readable(scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[tuple[str, SceneFacts]]:
    return [(scene.image_id, one) for scene, one in zip(scenes.scenes, facts, strict=True) if one.image_pixels]


def _near(val: Sequence[tuple[str, SceneFacts]], train: Sequence[tuple[str, SceneFacts]]) -> list[str]:
    if not val or not train:
        return []
    one, other = (
        np.stack([np.frombuffer(facts.thumb, np.uint8) for _, facts in part]).astype(np.float32)
        for part in (val, train)
    )
    found = []
    for first in range(0, len(one), 256):
        block = one[first : first + 256]
        square = (block**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * block @ other.T
        best = square.argmin(1)
        distance = np.sqrt(np.maximum(square[np.arange(len(block)), best], 0) / one.shape[1])
        contrast = block.std(1)
        for row in np.flatnonzero((distance < NEAR_LEVELS) & (contrast > 4 * NEAR_LEVELS)):
            found.append(f"{val[first + row][0]} ~ {train[best[row]][0]}")
    return found
