"""A small run whose questions are exchanged with other tools: awkward ids and class names, every kind of region."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ripu.annotate.classes import AnnotationClass
from ripu.annotate.codecs import FORMATS, Asked, ClassNames
from ripu.annotate.import_report import ImportReport
from ripu.annotate.questions import Question, Questions
from ripu.labelstore import ImagePicks, LabelStore, Regions, TargetImage

HEIGHT, WIDTH = 140, 203
IMAGES = ("Zürich/straße 01", "../../etc/passwd", "=cmd|' /C calc'!A0", "日本/写真", "not asked")
NASTY = ("road", "traffic light", "traffic", "light", "=1+1", "@sum", "'tis", "Straße/Gehweg", 'a,b;c "d"', "1", "void")
NASTY = (*NASTY, "unsure", "?", "-", "traffic_light", "<&>", "CON", "路面")
PLAIN = ("road", "traffic light", "car", "sky")
REGIONS = ("pixel", "k=1", "k=4", "k=9", "k=32", "superpixels")


class Run:
    """Two rounds of questions, and answers to most of them."""

    def __init__(self, folder: Path, regions: str = "k=1", names: tuple[str, ...] = PLAIN) -> None:
        self.classes = [AnnotationClass(number, name, (128, 64, 128), "") for number, name in enumerate(names)]
        self.images = [TargetImage(image_id, HEIGHT, WIDTH) for image_id in IMAGES]
        self.rng = np.random.default_rng(0)
        radius = {"pixel": 0, "superpixels": 0}.get(regions) if "=" not in regions else int(regions[2:])
        asked = self.images[: 2 if regions in ("k=32", "superpixels") else -1]  # their pictures are large
        with LabelStore.create(folder, self.images, list(names)) as store:
            for index in range(2):
                spec = store.begin_round(index, 10 + index, 4, reveal_radius=radius, suppress_radius=0)
                store.add_round(spec, [self._picks(image, index, regions) for image in asked])
        self.store = store
        self._rounds: dict[int, Questions] = {}
        self.answers = {}
        for index in range(2):
            for number in range(len(self.images)):
                for question in self.questions_of(index).of_image(number):
                    labels = self._labels(question)
                    if labels is not None:
                        self.answers[question.qid] = labels

    def _picks(self, image: TargetImage, index: int, regions: str) -> ImagePicks:
        if regions == "superpixels":  # the cells of points that are drawn at random
            seeds = np.random.default_rng(3).uniform(0, 1, (40, 2)) * (HEIGHT, WIDTH)
            grid = np.stack(np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij"), axis=-1)
            cells = ((grid[:, :, None] - seeds) ** 2).sum(axis=-1).argmin(axis=-1).ravel()
            sets = [np.flatnonzero(cells == cell) for cell in range(3 * index, 3 * index + 3)]
            picks = np.stack(np.divmod([one[len(one) // 2] for one in sets], WIDTH), axis=1)
            return ImagePicks(image.image_id, picks, regions=Regions.from_sets(sets))
        rounds = ([(0, 0), (HEIGHT - 1, WIDTH - 1), (70, 101)], [(0, WIDTH - 1), (HEIGHT - 1, 0)])
        return ImagePicks(image.image_id, np.array(rounds[index]))

    def _labels(self, question: Question) -> np.ndarray | None:
        values = [*range(len(self.classes)), 255]
        kind = self.rng.integers(6)
        count = len(question.pixels)
        if count > 100:  # patches, as people paint them
            rows, columns = question.pixels.T // 7
            patches = self.rng.choice([0, *self.rng.choice(values, 2), 255, 254], (HEIGHT, WIDTH))
            return None if kind == 0 else patches[rows, columns].astype(np.uint8)
        if kind == 0:
            return None
        if kind == 1:
            return np.full(count, self.rng.choice(values), np.uint8)
        if kind == 2:
            return self.rng.choice([*values, 254], count).astype(np.uint8)
        if kind == 3:
            return self.rng.choice([0, 254], count).astype(np.uint8)
        return self.rng.choice(values, count).astype(np.uint8)

    def questions_of(self, index: int) -> Questions:
        if index not in self._rounds:
            self._rounds[index] = Questions(self.store, index)
        return self._rounds[index]

    def read_image(self, number: int) -> np.ndarray:
        return np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)

    def final_labels(self, question: Question) -> np.ndarray | None:
        return self.answers.get(question.qid)

    def export(self, name: str, out: Path, index: int = 1, final: Callable | None = None) -> int:
        asked = Asked(self.questions_of(index), ClassNames(self.classes), self.read_image, final or self.final_labels)
        return FORMATS[name].export_questions(asked, out)

    def read(self, name: str, path: Path) -> tuple[dict[str, list[int] | None], ImportReport]:
        found, report = FORMATS[name].import_answers(path, self.store, self.questions_of, self.classes)
        assert len({qid for qid, _ in found}) == len(found)
        given = [(qid, labels) for qid, labels in found if labels is not None]  # None: unsure
        for qid, labels in given:  # never a label that is none, never another number than that of the asked pixels
            question = self.questions_of(int(qid.split("-")[0])).question(qid)
            assert (labels.dtype, len(labels)) == (np.uint8, len(question.pixels))
            assert set(labels.tolist()) <= {*range(len(self.classes)), 254, 255}
            assert (labels != 254).any()
        return {**dict.fromkeys(qid for qid, _ in found), **{qid: labels.tolist() for qid, labels in given}}, report

    def expected(self, index: int = 1) -> dict[str, list[int]]:
        """The answers of a round, without those that answer nothing."""
        return {
            qid: labels.tolist()
            for qid, labels in self.answers.items()
            if qid.startswith(f"{index}-") and (labels != 254).any()
        }
