"""Label Studio: a task for each question, with its enlarged crop.

A choice answers for all pixels of a question, brush strokes for those that they cover by more than half.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from ripu.annotate.codecs.answers import Answers, Asked
from ripu.annotate.codecs.brush import decode_brush, encode_brush
from ripu.annotate.codecs.crops import Painting, Window, to_masks, write_crops
from ripu.annotate.codecs.masks import Labels
from ripu.annotate.codecs.names import ClassNames, short
from ripu.annotate.codecs.reading import MalformedError, field, read_json
from ripu.annotate.questions import Question
from ripu.io.writing import write_bytes

_FILE = "tasks.json"
_NO_ANSWER = frozenset({"textarea", "rating", "number", "datetime", "relation"})


def write_label_studio(asked: Asked, out: Path) -> None:
    """Write ``crops/``, ``tasks.json`` and ``label_config.xml``, the labelling interface of the project.

    The tasks refer to the crops as local files of Label Studio, for ``LOCAL_FILES_DOCUMENT_ROOT`` set to ``out``.
    """
    tasks = []
    for question, window in write_crops(asked, out / "crops"):
        task: dict[str, Any] = {
            "data": {"image": f"/data/local-files/?d=crops/{question.qid}.png", "qid": question.qid}
        }
        labels = asked.final_labels(question)
        if labels is not None:
            results = [*_results(question, labels, window, asked.names)]
            task["annotations"] = [{"result": results}] if results else []
        tasks.append(task)
    write_bytes(out / _FILE, json.dumps(tasks).encode())
    write_bytes(out / "label_config.xml", _config(asked.names).encode())


def _results(question: Question, labels: Labels, window: Window, names: ClassNames) -> Iterator[dict[str, Any]]:
    if (labels == labels[0]).all() and int(labels[0]) in names.names:
        choices = {"choices": [names.names[int(labels[0])]]}
        yield {"type": "choices", "from_name": "class", "to_name": "image", "value": choices}
        return
    height, width = window.picture_size
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    for label, mask in to_masks(question, labels, window):
        value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [names.names[label]]}
        yield {"type": "brushlabels", "from_name": "pixels", "to_name": "image", "value": value, **size}


def _config(names: ClassNames) -> str:
    labels = [(quoteattr(name), names.colors[label]) for label, name in names.names.items()]
    choices = [f"    <Choice value={name}/>" for name, _ in labels]
    brushes = [f'    <Label value={name} background="{color}"/>' for name, color in labels]
    lines = ["<View>", '  <Image name="image" value="$image" zoom="true" zoomControl="true" smoothing="false"/>']
    lines += ['  <Choices name="class" toName="image" choice="single">', *choices, "  </Choices>"]
    lines += ['  <BrushLabels name="pixels" toName="image">']
    return "\n".join([*lines, *brushes, "  </BrushLabels>", "</View>\n"])


def read_label_studio(path: Path, answers: Answers, names: ClassNames) -> None:
    """Read an export of the kind "JSON"; predictions, drafts and cancelled annotations do not count.

    Raises:
        MalformedError: The file is damaged, or contains shapes or pictures of another size.
    """
    tasks = read_json(path, _FILE)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise MalformedError("not a list of tasks with their data", 'export it as "JSON", not "JSON-MIN"')
    for number, task in enumerate(tasks):
        where = f"task {number}"
        data = field(task, "data", dict, where=where)
        name = data["qid"] if isinstance(data.get("qid"), str) else field(data, "image", str, where=where)
        for results in _results_of(task, where):
            question = answers.question_of_crop(name)
            if question is not None:
                _add(Painting(answers, question), results, names, where)


def _results_of(task: Any, where: str) -> Iterator[list[Any]]:
    """Yield the results of each annotation that counts."""
    for annotation in field(task, "annotations", list, where=where) if "annotations" in task else ():
        results = field(annotation, "result", list, where=where)
        if not annotation.get("was_cancelled") and results:
            yield results


def _add(picture: Painting, results: list[Any], names: ClassNames, where: str) -> None:
    """Add one annotation of a question."""
    for result in results:
        kind = field(result, "type", str, where=where)
        if kind in _NO_ANSWER:
            continue
        if kind not in ("choices", "brushlabels") or result.get("image_rotation"):
            raise MalformedError(f"{where} has {short(kind)}, or is turned", "answer with choices or brush strokes")
        value = field(result, "value", dict, where=where)
        for name in field(value, kind, list, where=where):
            label = names.label(field({"class": name}, "class", str, where=where), where)
            if kind == "choices" and label is not None:
                picture.fill(label)
            elif label is not None:
                rle = field(value, "rle", list, where=where)
                picture.check_size(result.get("original_height"), result.get("original_width"), where)
                picture.paint(label, decode_brush(rle, *picture.window.picture_size, where))
    picture.finish()
