"""GeoTIFFs in and out: the same place, read back by GDAL; classes and colours."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from geotiffs import PLACE, picture, read, run, write_geo
from ripu.datasets import georeference, tiff_pages
from ripu.datasets.errors import SceneError
from ripu.datasets.georeference import Georeference, read_georeference
from ripu.datasets.taxonomy import CAMVID11
from ripu.inference.image_writers import JpegWriter
from ripu.inference.input_images import Finished
from ripu.inference.results import KINDS as SUFFIXES
from ripu.inference.results import Painter, ResultFiles, Strip
from ripu.io.writing import AtomicFile
from running import untrained_checkpoint

rasterio = pytest.importorskip("rasterio")
from rasterio.control import GroundControlPoint  # noqa: E402

OPACITY = 0.7
KINDS = "write=[labelIds,trainIds,color,overlay,uncertainty]"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("options", [(), ("scale=1", "tile=[48,64]")], ids=["whole", "strips"])
@pytest.mark.parametrize("bigtiff", ["NO", "YES"])
def test_results_lie_where_the_image_does(
    checkpoint: Path, tmp_path: Path, options: tuple[str, ...], bigtiff: str
) -> None:
    write_geo(tmp_path / "a.tif", picture(), bigtiff=bigtiff)
    Image.fromarray(picture()).save(tmp_path / "b.png")
    assert run(checkpoint, tmp_path / "a.tif", tmp_path / "geo", KINDS, f"opacity={OPACITY}", *options)["done"] == 1
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
                with rasterio.open(tmp_path / "geo" / "color" / "a.tif") as file:
                    colors = file.read()
                mixed = np.rint(np.moveaxis(picture(), 2, 0) * (1 - OPACITY) + colors * OPACITY)
                np.testing.assert_array_equal(bands, mixed)


def test_a_file_that_tifffile_opens_but_cannot_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    assert tiff_pages.open_mask(tmp_path / "a.tif", 1) is None
    (tmp_path / "b.tif").write_bytes(b"II*\0" + bytes(3))
    assert tiff_pages.open_mask(tmp_path / "b.tif", 1) is None

    class WithoutPages(tifffile.TiffFile):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.pages = []

    monkeypatch.setattr(tifffile, "TiffFile", WithoutPages)
    with pytest.raises(OSError, match="index out of range"):
        tiff_pages.open_mask(tmp_path / "a.tif", 1)


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


WORLD = "0.5\n0.1\n0.1\n-0.5\n412345.55\n5654321.55\n"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_world_file_and_an_orientation_contradict_each_other(
    checkpoint: Path, tmp_path: Path, name: str, turn: int
) -> None:
    exif = Image.Exif()
    exif[274] = turn
    Image.fromarray(picture()).save(tmp_path / name, exif=exif)
    assert run(checkpoint, tmp_path / name, tmp_path / "turned")["done"] == 1  # without a place, it is turned
    (tmp_path / "a.wld").write_text(WORLD)
    found = run(checkpoint, tmp_path / name, tmp_path / "out")
    assert found["done"] == (turn == 1)
    if turn > 1:
        assert f"has a georeference, and an orientation that asks viewers to turn it (EXIF {turn})" in str(found)
        assert list((tmp_path / "out").rglob("a.*")) == []


PLACED = "<PAMDataset><SRS>EPSG:25833</SRS><Metadata>{}</Metadata></PAMDataset>"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.png.aux.xml", b"<!DOCTYPE x [<!ENTITY a 'b'>]><PAMDataset><SRS>&a;</SRS></PAMDataset>", "a document type"),
        ("a.png.aux.xml", "<?xml version='1.0' encoding='utf-16'?><!DOCTYPE x><a/>".encode("utf-16"), "document type"),
        ("a.png.aux.xml", b"<PAMDataset><SRS>", "it is not XML"),
        ("a.png.aux.xml", b"<?xml version='1.0' encoding='nonsense'?><a/>", "it is not XML"),
        ("a.png.aux.xml", b"<PAMDataset><SRS>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</SRS></PAMDataset>", "deeply"),
        ("a.png.aux.xml", b" " * (1 << 22) + b"<PAMDataset/>", "has 4194317 bytes, more than 4194304"),
        ("a.pgw", None, "is not a regular file"),
    ],
)
def test_a_bad_file_beside_an_image_is_named_in_one_line(
    checkpoint: Path, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    if content is None:
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SceneError, match=rf"^{tmp_path}/{name} .*{says}.*(correct it, or remove it)$") as caught:
        read_georeference(tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    found = run(checkpoint, tmp_path / "a.png", tmp_path / "out")
    assert found["unreadable"] == {"a.png": str(caught.value)}


def test_an_unreadable_file_beside_an_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text(WORLD)

    def refuse(path: Path, most_bytes: int) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(georeference, "open_regular", refuse)
    with pytest.raises(
        SceneError, match=r"a\.pgw cannot be read \(Permission denied\); make it readable, or remove it$"
    ):
        read_georeference(tmp_path / "a.png")


def test_what_lies_beside_an_image_by_accident_is_no_place(tmp_path: Path) -> None:
    name = "a" * 245 + ".png"  # no longer names fit on the disk
    Image.fromarray(picture()).save(tmp_path / name)
    assert read_georeference(tmp_path / name) is None
    Image.fromarray(picture()).save(tmp_path / "b.png")
    (tmp_path / "b.pgw").mkdir()
    (tmp_path / "b.png.aux.xml").symlink_to(tmp_path / "nothing")
    assert read_georeference(tmp_path / "b.png") is None


def test_comments_and_text_as_it_is_do_no_harm(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "a.png.aux.xml").write_text(PLACED.format("<!-- a --><MDI><![CDATA[<b>]]></MDI>"))
    place = read_georeference(tmp_path / "a.png")
    assert place is not None
    assert place.files["aux.xml"] == b"<PAMDataset><SRS>EPSG:25833</SRS></PAMDataset>"


def test_an_image_is_predicted_again_if_its_place_changes(checkpoint: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(picture()).save(source / "a.png")
    Image.fromarray(picture()).save(source / "b.png")

    def predicted(*extra: str) -> tuple[int, set[str]]:
        found = run(checkpoint, source, out, "write=[labelIds]", *extra)
        assert found["done"] + found["skipped"] == 2
        return found["done"], {path.name for path in (out / "labelIds").iterdir()} - {"a.png", "b.png"}

    assert predicted() == (2, set())
    (source / "a.pgw").write_text(WORLD)
    (source / "a.prj").write_text("PROJCS[]")
    assert predicted() == (1, {"a.pgw", "a.prj"})
    assert predicted() == (0, {"a.pgw", "a.prj"})
    (source / "a.pgw").write_text(WORLD.replace("0.5", "0.25"))
    assert predicted() == (1, {"a.pgw", "a.prj"})
    assert (out / "labelIds" / "a.pgw").read_text() == WORLD.replace("0.5", "0.25")
    (out / "labelIds" / "a.prj").unlink()
    assert predicted() == (1, {"a.pgw", "a.prj"})
    (source / "a.prj").unlink()
    assert predicted() == (1, {"a.pgw"})
    (source / "a.pgw").unlink()
    (out / "labelIds" / "b.pgw").write_text("of somebody else")
    assert predicted() == (1, {"b.pgw"})
    assert predicted("overwrite=true") == (2, {"b.pgw"})


def test_a_tiff_that_loses_its_place_leaves_no_old_results(checkpoint: Path, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.tif")
    (tmp_path / "a.tfw").write_text(WORLD)

    def predicted(*extra: str) -> set[str]:
        assert run(checkpoint, tmp_path / "a.tif", tmp_path / "out", "write=[labelIds]", *extra)["done"] == 1
        return {path.name for path in (tmp_path / "out" / "labelIds").iterdir()}

    assert predicted() == {"a.tif", "a.tfw"}
    (tmp_path / "a.tfw").rename(tmp_path / "kept")
    assert predicted() == {"a.png"}
    (tmp_path / "kept").rename(tmp_path / "a.tfw")
    assert predicted("overwrite=true") == {"a.tif", "a.tfw"}


def test_further_kinds_are_made_and_none_is_of_an_earlier_image(checkpoint: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(picture()).save(source / name)

    def done(kinds: str) -> int:
        return run(checkpoint, source, out, f"write=[{kinds}]")["done"]

    (out / "color").mkdir(parents=True)
    (out / "color" / "a.png").write_text("cut off")  # a prediction was interrupted before it could record it
    assert done("labelIds") == 2
    assert done("labelIds,color") == 2
    assert read(out / "color" / "a.png").shape == picture().shape
    assert [done(kinds) for kinds in ("labelIds", "color", "labelIds,color")] == [0, 0, 0]
    assert [done(kinds) for kinds in ("uncertainty", "labelIds")] == [2, 0]
    Image.fromarray(picture()[::-1]).save(source / "a.png")
    assert done("labelIds") == 1
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.png")} - {"legend.png"}
    assert left == {"labelIds/a.png", "labelIds/b.png", "color/b.png", "uncertainty/b.png"}
    assert done("labelIds,color") == 1


def test_an_interrupted_overwrite_is_made_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in "abc":
        Image.fromarray(picture()).save(source / f"{name}.png")
    (source / "c.pgw").write_text(WORLD)
    assert run(checkpoint, source, out)["done"] == 3
    add = Finished.add

    def interrupted(self: Finished, entry: dict[str, Any], kinds: Any) -> None:
        add(self, entry, kinds)
        raise KeyboardInterrupt

    (source / "c.pgw").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Finished, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, source, out, "overwrite=true", "flip=true")
    assert (out / "labelIds" / "c.pgw").exists()
    found = run(checkpoint, source, out, "flip=true")
    assert (found["done"], found["skipped"]) == (2, 1)
    assert not (out / "labelIds" / "c.pgw").exists()
    assert run(checkpoint, source, out, "flip=true")["skipped"] == 3


def test_a_link_to_nothing_is_skipped(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(picture()).save(source / "a.png")
    (source / "b.png").symlink_to(tmp_path / "nothing")
    found = run(checkpoint, source, tmp_path / "out")
    assert found["done"] == 1
    assert "b.png does not exist" in found["unreadable"]["b.png"]


@pytest.mark.parametrize("fault", ["the last writer", "a file beside"])
def test_a_fault_at_the_end_leaves_no_result_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = {kind: tmp_path / kind / f"a{SUFFIXES[kind]}" for kind in ("labelIds", "color", "overlay")}
    place = Georeference(is_tiff=False, files={"world": b"0", "prj": b"1"})
    label = np.zeros((4, 5), dtype=np.uint8)
    with ResultFiles(files, (4, 5), Painter(CAMVID11, 0.5), place) as results:
        results.write(Strip(label, np.zeros((4, 5), dtype=np.float32), np.zeros((4, 5, 3), dtype=np.uint8)))
        if fault == "the last writer":
            monkeypatch.setattr(JpegWriter, "finish", full)
        else:
            write = AtomicFile.write
            monkeypatch.setattr(AtomicFile, "write", lambda self, data: full() if data == b"1" else write(self, data))
        with pytest.raises(OSError, match="No space left"):
            results.publish()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_image_without_a_place_has_none(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.tif")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")
    assert read_georeference(tmp_path / "a.tif") is None
    assert read_georeference(tmp_path / "a.png") is None
