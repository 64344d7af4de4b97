"""Callback that fills dashboards during a run: the curve over labels, pictures, tables and label versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from ripu.dashboards.boards import Board, Layer, Picture, class_layer, round_layer
from ripu.datasets.scenes import Scenes
from ripu.datasets.taxonomy import VOID
from ripu.labelstore import LabelStore
from ripu.module import RipuModule
from ripu.report.pictures import fit, panel
from ripu.selection.callback import SelectionCallback

TABLE_ROWS = 500  # the table of a round lists at most this many images, those with the highest scores
TABLE_PICTURES = 16  # this many of them have a picture


class Dashboard(pl.Callback):
    """Shows a run on each :class:`ripu.dashboards.boards.Board` among its loggers.

    At each evaluation: mIoU over the labelled share (``al/mIoU``), the confusion matrix, and a fixed panel of
    validation and target images with truth, prediction and the pixels that were (or would be) queried. After each
    round: revealed classes against the truth, the images of the round by score, and a version of the label store.
    """

    def __init__(
        self,
        selection: SelectionCallback,
        scenes: Scenes,
        target_size: tuple[int, int],
        num_pictures: int,
        final_fraction: float | None = None,
    ) -> None:
        """Set up; must follow ``selection`` in the list of callbacks.

        Args:
            selection, scenes: The plan, the learning curve and the label store; the data.
            target_size: (height, width) that target images are fed at.
            num_pictures: Number of validation images and of target images in the panel.
            final_fraction: Share of labels in settings without rounds, e.g. 1.0 with all labels.
        """
        self.selection, self.scenes = selection, scenes
        self.target_size, self.num_pictures = target_size, num_pictures
        self.final_fraction = final_fraction

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show an evaluation during training; the one before training is shown after the round of step 0."""
        self._show_evaluation(trainer, pl_module, self.selection.evaluations[-1]["labelled_fraction"])
        if trainer.state.fn == "validate":
            self._show_round(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the final evaluation."""
        self._show_evaluation(trainer, pl_module, self.selection.labelled_fraction)

    def _show_evaluation(self, trainer: pl.Trainer, module: pl.LightningModule, labelled_fraction: float) -> None:
        boards = _boards(trainer)
        if not boards:
            return
        assert isinstance(module, RipuModule)
        assert module.scores is not None
        assert module.counts is not None
        share = labelled_fraction if self.final_fraction is None else self.final_fraction
        values = {"al/labelled_fraction": share, "al/mIoU": module.scores.miou}
        values |= {f"al/{name}": value for name, value in module.scores.subsets.items()}
        counts, names = module.counts.cpu().numpy(), self.scenes.taxonomy.class_names
        panels = {name: list(self._panel(module, name)) for name in ("val", "target")}
        for board in boards:
            board.log_metrics(values, step=trainer.global_step)
            board.show_confusion("val/confusion", counts, names, trainer.global_step)
            for name, pictures in panels.items():
                if pictures:
                    board.show_pictures(f"panel/{name}", pictures, trainer.global_step)

    def _panel(self, module: RipuModule, name: str) -> Iterator[Picture]:
        taxonomy, store, is_pool = self.scenes.taxonomy, self.selection.store, name == "target"
        scenes = self.scenes.target if is_pool else self.scenes.val
        found = panel(module, scenes, self.selection, self.num_pictures, self.target_size, is_pool=is_pool)
        for index, arrays in found:
            known = [key for key in ("truth", "prediction") if key in arrays]
            layers: dict[str, Layer] = {key: class_layer(arrays[key], taxonomy) for key in known}
            if "queried" in arrays:
                num_rounds = max(1, store.num_rounds) if is_pool and store is not None else 1
                layers["queried"] = round_layer(arrays["queried"], num_rounds, is_next=not is_pool)
            yield Picture(scenes.scenes[index].image_id, arrays["image"], layers)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the round of this step, if there was one."""
        self._show_round(trainer)

    def _show_round(self, trainer: pl.Trainer) -> None:
        step, boards, store = trainer.global_step, _boards(trainer), self.selection.store
        if not boards or store is None or step not in self.selection.plan.selection_steps:
            return
        entry = self.selection.rounds[-1]
        ratios, classes = self._classes(entry)
        images = self._images(store, int(entry["index"]))
        facts = {"round": int(entry["index"]) + 1} | {name: entry[name] for name in ("labelled_fraction", "picks")}
        for board in boards:
            board.log_metrics({"al/labelled_fraction": entry["labelled_fraction"], **ratios}, step=step)
            columns = ["class", "pixels so far", "new pixels", "share %", "true share %"]
            board.show_table("round/classes", columns, classes, step)
            columns = ["place", "image", "mean score", "best score", "picks", "pixels", "void %", "classes", "queried"]
            board.show_table("round/images", columns, images, step)
            board.keep_labels(store.path, facts, step)

    def _classes(self, entry: Mapping[str, Any]) -> tuple[dict[str, float], list[list[Any]]]:
        """Return the revealed share over the true share of each class, and the rows of the classes."""
        truth = self.selection.true_class_pixels
        revealed, new = entry["class_pixels"], entry["new_class_pixels"]
        total, total_true = max(1, sum(revealed.values())), max(1, sum(truth.values())) if truth else 1
        ratios, rows = {}, []
        for name in self.scenes.taxonomy.class_names:
            share = revealed[name] / total
            true_share = truth[name] / total_true if truth else None
            percent = None if true_share is None else 100 * true_share
            rows.append([name, revealed[name], new[name], 100 * share, percent])
            if true_share:
                ratios[f"al/over_truth/{name}"] = share / true_share
        return ratios, rows

    def _images(self, store: LabelStore, index: int) -> list[list[Any]]:
        """Return the rows of the images of a round, those with the highest mean score first."""
        found = []
        for number, image in enumerate(store.images):
            record = store.picks(image.image_id, index)
            if len(record.picks) and record.scores is not None:
                found.append((float(record.scores.mean()), float(record.scores.max()), number, len(record.picks)))
        found.sort(key=lambda one: (-one[0], one[2]))
        rows = []
        for place, (mean, best, number, picks) in enumerate(found[:TABLE_ROWS]):
            image_id = store.images[number].image_id
            pixels = store.asked(image_id, index).indices
            labels, is_known = store.answered(image_id, pixels)
            known = labels[is_known]
            void = 100.0 * float((known == VOID).mean()) if len(known) else None
            num_classes = len(np.unique(known[known != VOID]))
            picture = None
            if place < TABLE_PICTURES:
                revealed = store.revealed_round(image_id, index + 1)
                shown = fit(self.scenes.target.read_picture(number), revealed.shape)
                picture = Picture(image_id, shown, {"queried": round_layer(revealed, index + 1)})
            rows.append([place + 1, image_id, mean, best, picks, len(pixels), void, num_classes, picture])
        return rows


def _boards(trainer: pl.Trainer) -> list[Any]:
    return [one for one in trainer.loggers if isinstance(one, Board)] if trainer.is_global_zero else []


def keep_final(trainer: pl.Trainer, file: Path, results: Mapping[str, Any]) -> None:
    """Hand the final checkpoint to the boards, and close them."""
    for board in _boards(trainer):
        board.keep_checkpoint(file, {"mIoU": results["mIoU"], "labelled_fraction": results["labelled_fraction"]})
        board.finish()
