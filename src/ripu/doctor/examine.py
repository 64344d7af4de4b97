"""Verdicts on a data set: on every file, and, before each run, on a few."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ripu.datasets.errors import SceneError
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.value_ranges import check_ranges, spread
from ripu.doctor import checks
from ripu.doctor.checks import ERROR, NOTE, SAMPLED, WARNING, Finding
from ripu.doctor.reading import SceneFacts, read_label

SAMPLED_HEADS = 50  # scenes per part whose files are looked for before each run

_log = logging.getLogger(__name__)
_MORE = "python -m ripu.doctor dataset=... checks every file"


def examine(
    parts: Mapping[str, SceneDataset],
    facts: Mapping[str, Sequence[SceneFacts]],
    frames: Mapping[str, tuple[int, int]] | None = None,
) -> list[Finding]:
    """Judge the parts (source, target, val) by the facts of their scenes; return the findings, the worst first."""
    found: list[Finding] = []
    for name, scenes in parts.items():
        found += checks.judge_files(name, scenes, facts[name])
        found += checks.judge_sizes(name, scenes, facts[name])
        if frames is not None:
            found += checks.judge_proportions(name, scenes, facts[name], frames[name])
        found += checks.judge_values(name, scenes, facts[name])
        ids = checks.judge_ids(name, scenes.taxonomy, facts[name])
        # If ids are not what they are taken for, counts of classes mean nothing.
        found += ids or checks.judge_classes(name, scenes.taxonomy, facts[name])
        found += checks.find_copies(name, scenes, facts[name])
    if "source" not in parts:
        what = "no source is described (dataset.source.images)"
        found.append(Finding(NOTE, "source", what, "nothing to do with setting=target_only; other settings need one"))
    found += checks.find_unpaired(parts)
    found += checks.find_leaks(parts, facts)
    return sorted(found, key=lambda one: (ERROR, WARNING, NOTE).index(one.level))


def quick_check(parts: Mapping[str, SceneDataset]) -> None:
    """Check, before a run, that some files exist and that a few labels make sense.

    Takes about a second, however many scenes there are. Parts that skip unreadable files may have some. Images
    with bands that are not read, and images that are both trained and reported on, are logged.

    Raises:
        SceneError: A file is missing, labels cannot be read or cannot be meant, or values use few of their bits.
    """
    _warn_of_shared_images(parts)
    for name, scenes in parts.items():
        for index in [] if scenes.skips_unreadable else spread(len(scenes), SAMPLED_HEADS):
            for path in (scenes.scenes[index].image, scenes.scenes[index].label):
                if path is not None and not (path.is_file() and path.stat().st_size):
                    state = "is empty" if path.is_file() else "is not a file" if path.exists() else "does not exist"
                    raise SceneError(f"{path} {state}; restore it, or take the scene out ({_MORE})")
        _check_values(scenes)
        labelled = [index for index, scene in enumerate(scenes.scenes) if scene.label is not None]
        sampled = [labelled[at] for at in spread(len(labelled), SAMPLED)]
        read = [read_label(scenes, index, SceneFacts()) for index in sampled]
        for index, one in zip(sampled, read, strict=True):
            if one.label_fault and not scenes.skips_unreadable:
                remedy = checks.label_problem(one.label_fault)[1]
                raise SceneError(f"{scenes.scenes[index].label}: {one.label_fault}; {remedy} ({_MORE})")
        for finding in checks.judge_ids(name, scenes.taxonomy, read):
            if finding.level == ERROR:
                raise SceneError(f"{scenes.name}: {finding.what}; {finding.remedy} ({_MORE})")


def _warn_of_shared_images(parts: Mapping[str, SceneDataset]) -> None:
    val = {scene.image for scene in parts["val"].scenes} if "val" in parts else set()
    for name, scenes in parts.items():
        shared = [scene.image for scene in scenes.scenes if scene.image in val] if name != "val" else []
        if shared:
            _log.warning(
                "%d of the %d images of val are also in %s (%s, ...): results on images that were trained on are "
                "worthless; take them out of one of the two",
                len(shared),
                len(val),
                name,
                shared[0],
            )


def _check_values(scenes: SceneDataset) -> None:
    unread = check_ranges([scene.image for scene in scenes.scenes], scenes.image_reader, skips=scenes.skips_unreadable)
    if unread:
        _log.warning(
            "%s: images have bands that are not read (%s, ...); name those to read, e.g. data.bands=[1,2,3,4], or "
            "[1,2,3] if colour is what is meant",
            scenes.name,
            unread[0],
        )
