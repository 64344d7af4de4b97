"""Names of the exchange formats; see :mod:`ripu.annotate.codecs`, which takes longer to import."""

from __future__ import annotations

from collections.abc import Mapping

FORMATS: Mapping[str, str] = {
    "bundle": "questions.csv, crops and answers.csv, for a spreadsheet",
    "cvat-tags": "CVAT for images 1.1, a tag on each crop",
    "cvat-masks": "CVAT for images 1.1, masks on crops",
    "label-studio": "Label Studio JSON, choices and brush strokes on crops",
    "coco": "COCO JSON, masks on whole images",
    "png": "a label image for each image",
    "class-folders": "a folder of binary masks for each class",
}
"""Name -> description."""
