"""GeoTIFFs in and out: the same place, read back by GDAL; classes, colours and pixels without data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.georeference import read_georeference
from ripu.datasets.taxonomy import CAMVID11
from ripu.inference import photo_prediction
from ripu.predict import predict
from running import compose, untrained_checkpoint

rasterio = pytest.importorskip("rasterio")
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

PLACE = Affine(0.5, 0.1, 412_345.25, 0.1, -0.5, 5_654_321.75)  # turned, so that a tiepoint and a scale do not do
KINDS = "write=[labelIds,trainIds,color,overlay,uncertainty]"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


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


@pytest.mark.parametrize("options", [(), ("scale=1", "tile=[48,64]")], ids=["whole", "strips"])
@pytest.mark.parametrize("bigtiff", ["NO", "YES"])
def test_results_lie_where_the_image_does(
    checkpoint: Path, tmp_path: Path, options: tuple[str, ...], bigtiff: str
) -> None:
    write_geo(tmp_path / "a.tif", picture(), bigtiff=bigtiff)
    Image.fromarray(picture()).save(tmp_path / "b.png")
    assert run(checkpoint, tmp_path / "a.tif", tmp_path / "geo", KINDS, *options)["done"] == 1
    assert run(checkpoint, tmp_path / "b.png", tmp_path / "plain", KINDS, *options)["done"] == 1
    found = {path.relative_to(tmp_path / "geo").as_posix() for path in (tmp_path / "geo").rglob("a.*")}
    assert found == {f"{kind}/a.tif" for kind in ("labelIds", "trainIds", "color", "overlay", "uncertainty")}
    for name in found:
        with rasterio.open(tmp_path / "geo" / name) as file:
            assert (file.crs, file.transform) == (rasterio.crs.CRS.from_epsg(25833), PLACE)
            assert file.profile["tiled"]
            bands = file.read()
            if name.startswith(("labelIds", "trainIds")):
                assert (file.count, file.dtypes[0], file.nodata) == (1, "uint8", 255)
                colors = file.colormap(1)
                assert [colors[number][:3] for number in range(11)] == list(CAMVID11.class_colors)
                assert file.descriptions == ("class",)
                assert file.tags()["class 3"] == CAMVID11.class_names[3]
                np.testing.assert_array_equal(bands[0], read(tmp_path / "plain" / name.replace("a.tif", "b.png")))
            elif name.startswith("uncertainty"):
                assert (file.count, file.dtypes[0]) == (1, "float32")
                assert math.isnan(file.nodata)
                stored = read(tmp_path / "plain" / "uncertainty" / "b.png") * (math.log(11) / 255)
                np.testing.assert_allclose(bands[0], stored, atol=math.log(11) / 255)
            elif name.startswith("color"):
                np.testing.assert_array_equal(np.moveaxis(bands, 0, 2), read(tmp_path / "plain" / "color" / "b.png"))
            else:
                overlay = read(tmp_path / "plain" / "overlay" / "b.jpg").astype(int)
                assert np.abs(np.moveaxis(bands, 0, 2) - overlay).mean() < 12  # what JPEG leaves


@pytest.mark.parametrize("mark", ["nodata", "alpha", "nan"])
@pytest.mark.parametrize("strips", [False, True])
def test_pixels_without_data_have_no_class(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, strips: bool
) -> None:
    if strips:
        monkeypatch.setattr(photo_prediction, "_WHOLE_PIXELS", 0)
    values = np.clip(picture(), 1, 255)
    hole = np.zeros(values.shape[:2], dtype=bool)
    hole[20:40, 30:90] = True
    if mark == "alpha":
        values = np.dstack([values, np.where(hole, 0, 255).astype(np.uint8)])
        write_geo(tmp_path / "a.tif", values, photometric="RGB", ALPHA="YES")
    elif mark == "nodata":
        values[hole] = 0
        write_geo(tmp_path / "a.tif", values, nodata=0)
    else:
        floats = values.astype(np.float32) / 255
        floats[hole] = np.nan
        write_geo(tmp_path / "a.tif", floats, nodata=math.nan)
    assert run(checkpoint, tmp_path / "a.tif", tmp_path / "out", KINDS)["done"] == 1
    with rasterio.open(tmp_path / "out" / "labelIds" / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1) == 255, hole)
    with rasterio.open(tmp_path / "out" / "uncertainty" / "a.tif") as file:
        np.testing.assert_array_equal(np.isnan(file.read(1)), hole)
    with rasterio.open(tmp_path / "out" / "color" / "a.tif") as file:
        assert not file.read()[:, hole].any()


def test_control_points_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    points = [GroundControlPoint(row, column, column * 2.0, row * 3.0) for row, column in ((0, 0), (9, 0), (0, 9))]
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", dtype="uint8", count=3, height=150, width=130) as file:
        file.write(np.moveaxis(picture(), 2, 0))
        file.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    assert run(checkpoint, tmp_path / "a.tif", tmp_path / "out", KINDS)["done"] == 1
    with rasterio.open(tmp_path / "out" / "labelIds" / "a.tif") as file:
        found, crs = file.gcps
        assert crs.to_epsg() == 4326
        assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]


@pytest.mark.parametrize(("name", "world"), [("a.tif", "a.tfw"), ("a.png", "a.pgw"), ("a.jpg", "a.wld")])
def test_world_files_go_along(checkpoint: Path, tmp_path: Path, name: str, world: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(picture()).save(source / name)
    (source / world).write_text("0.5\n0.1\n0.1\n-0.5\n412345.55\n5654321.55\n")
    wkt = rasterio.crs.CRS.from_epsg(25833).to_wkt()
    (source / f"{name}.aux.xml").write_text(
        f"<PAMDataset><SRS>{wkt}</SRS><PAMRasterBand band='1'><Description>red</Description></PAMRasterBand>"
        "</PAMDataset>"
    )
    assert run(checkpoint, source, tmp_path / "out", KINDS)["done"] == 1
    with rasterio.open(source / name) as file:
        expected = file.transform
        assert not expected.is_identity
    results = [path for path in (tmp_path / "out").rglob("a.*") if path.suffix in (".tif", ".png", ".jpg")]
    assert len(results) == 5
    for path in results:
        with rasterio.open(path) as file:
            assert file.transform == expected
            assert file.crs.to_epsg() == 25833
            assert file.descriptions[0] != "red"


def test_a_place_and_an_orientation_contradict_each_other(checkpoint: Path, tmp_path: Path) -> None:
    tags = [(274, "H", 1, 6, True), (33550, "d", 3, (1.0, 1.0, 0.0), True)]
    tifffile.imwrite(tmp_path / "a.tif", picture(), photometric="rgb", extratags=tags)
    found = run(checkpoint, tmp_path / "a.tif", tmp_path / "out")["unreadable"]
    assert "has a georeference, and an orientation" in found["a.tif"]


def test_metadata_with_entities_is_refused(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "a.png.aux.xml").write_text("<!DOCTYPE x [<!ENTITY a 'b'>]><PAMDataset><SRS>&a;</SRS></PAMDataset>")
    with pytest.raises(ValueError, match=r"a\.png\.aux\.xml has declarations"):
        read_georeference(tmp_path / "a.png")
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset><SRS>")
    with pytest.raises(ValueError, match=r"a\.png\.aux\.xml cannot be read"):
        read_georeference(tmp_path / "a.png")


def test_an_image_without_a_place_has_none(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.tif")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")
    assert read_georeference(tmp_path / "a.tif") is None
    assert read_georeference(tmp_path / "a.png") is None
