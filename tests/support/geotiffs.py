"""GeoTIFFs written by GDAL, and predictions of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ripu.predict import predict
from running import compose

rasterio = pytest.importorskip("rasterio")
from rasterio.transform import Affine  # noqa: E402

PLACE = Affine(0.5, 0.1, 412_345.25, 0.1, -0.5, 5_654_321.75)  # turned, so that a tiepoint and a scale do not do


def run(checkpoint: Path, source: Path, output: Path, *extra: str) -> dict[str, Any]:
    words = (f"checkpoint={checkpoint}", f"input={source}", f"output={output}", "accelerator=cpu", "batch=1")
    return predict(compose(*words, *extra, config_name="predict"))


def picture(height: int = 150, width: int = 130) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


def write_geo(path: Path, values: NDArray[Any], **options: Any) -> Path:
    """Write (H, W, B) with GDAL."""
    profile = {"driver": "GTiff", "dtype": values.dtype, "count": values.shape[2], "tiled": True, "blockxsize": 64}
    profile |= {"height": values.shape[0], "width": values.shape[1], "blockysize": 64, "compress": "deflate"}
    with rasterio.open(path, "w", **{**profile, "crs": "EPSG:25833", "transform": PLACE, **options}) as file:
        file.write(np.moveaxis(values, 2, 0))
    return path


def read(path: Path) -> NDArray[Any]:
    with Image.open(path) as file:
        return np.asarray(file)
