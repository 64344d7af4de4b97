"""What every key of a configuration may be: a table of rules, and which keys play no part in a combination.

A leaf without a rule here must have the type that it has in ``conf/``; a new key is written into a yaml, and into
:data:`RULES` where the type alone does not say what is allowed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
        allowed: What comes after "it must be".
        is_good: Whether a value is allowed.
        names: The words that are allowed, for a suggestion.
    """

    allowed: str
    is_good: Callable[[Any], bool]
    names: tuple[str, ...] = ()

    def __or__(self, other: Rule) -> Rule:
        """Either of two rules."""
        return Rule(
            f"{self.allowed}, or {other.allowed}",
            lambda value: self.is_good(value) or other.is_good(value),
            self.names + other.names,
        )


def is_number(value: object) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(
    allowed: str, above: float = -math.inf, least: float = -math.inf, below: float = math.inf, most: float = math.inf
) -> Rule:
    """A number above ``above``, at least ``least``, below ``below`` and at most ``most``."""
    return Rule(
        allowed,
        lambda value: is_number(value) and above < value < below and least <= value <= most,
    )


def whole(least: int, also: str = "", most: int = 10**9) -> Rule:
    """A whole number of at least ``least`` and at most ``most``."""
    return Rule(
        f"a whole number of {least} or more{also}" + (f", {most} at most" if most < 10**9 else ", 10**9 at most"),
        lambda value: _whole(value) and least <= value <= most,
    )


def one_of(*names: str) -> Rule:
    """One of some words."""
    return Rule("one of " + ", ".join(names), lambda value: isinstance(value, str) and value in names, names)


YES_NO = Rule("true or false", lambda value: isinstance(value, bool))
NOTHING = Rule("null", lambda value: value is None)
TEXT = Rule("text", lambda value: isinstance(value, str) and value != "")
SIZE = Rule(
    "[height, width], each a whole number of 32 or more, 2**27 pixels at most",
    lambda value: (
        isinstance(value, list)
        and len(value) == 2
        and all(_whole(side) and side >= 32 for side in value)
        and value[0] * value[1] <= 2**27
    ),
)
POSITIVE = number("above 0", above=0)
NOT_NEGATIVE = number("0 or more", least=0)
SHARE = number("between 0 and 1", least=0, most=1)
STEPS = Rule(
    "a list of whole numbers, e.g. [100,200]", lambda value: isinstance(value, list) and all(_whole(s) for s in value)
)
_DEVICES = Rule(
    "auto, a number of devices or a list of their different numbers",
    lambda value: (
        value in ("auto", -1, "-1")
        or (_whole(value) and value >= 1)
        or (isinstance(value, str) and all(part.strip().isdigit() for part in value.split(",")))
        or (
            isinstance(value, list)
            and bool(value)
            and all(_whole(one) and one >= 0 for one in value)
            and len(set(value)) == len(value)
        )
    ),
)
_FRACTIONS = Rule(
    "a list of increasing fractions of the run between 0 and 1",
    lambda value: (
        isinstance(value, list)
        and all(is_number(one) and 0 <= one < 1 for one in value)
        and all(one < next_one for one, next_one in pairwise(value))
    ),
)
_NODES = Rule("a list of entries with _target_", lambda value: isinstance(value, list))
_ACCELERATOR = one_of("auto", "cpu", "gpu", "cuda", "mps")

RULES: Mapping[str, Rule] = {
    "seed": Rule("a whole number of 0 or more, below 2**63", lambda value: _whole(value) and 0 <= value < 2**63),
    # The mode says what is wrong with 0.
    "budget": number("above 0: mode=ra a share of the image, mode=pa pixels per image", least=0),
    "selection_steps": STEPS | NOTHING,
    "pretrain_steps": whole(0) | NOTHING,
    "start.run": TEXT | NOTHING,
    "start.labels": TEXT | NOTHING,
    "start.ids": one_of("train", "label"),
    "start.missing_masks": one_of("refuse", "allow"),
    "objective.consistency_weight": NOT_NEGATIVE,
    "objective.negative_weight": NOT_NEGATIVE,
    "objective.negative_threshold": number("between 0 and 1 (tau; the paper: 0.05)", above=0, below=1),
    "optimizer.learning_rate": POSITIVE,
    "optimizer.head_lr_factor": POSITIVE,
    "optimizer.momentum": number("0 or more and below 1", least=0, below=1),
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.poly_power": NOT_NEGATIVE,
    "optimizer.poly_horizon_factor": number("1 or more: below, the rest of the run would train at rate 0", least=1),
    "data.source_size": SIZE,
    "data.target_size": SIZE,
    "data.source_batch": whole(1, most=65536),
    "data.target_batch": whole(1, most=65536),
    "data.transforms": _NODES,
    "data.num_workers": whole(0, most=1024),
    "data.cache": TEXT | NOTHING,
    "data.unreadable": one_of("stop", "skip"),
    "unreadable": one_of("stop", "skip"),
    "evaluation.batch": whole(1),
    "evaluation.flip": YES_NO,
    "evaluation.pictures": whole(0),
    "evaluation.gallery": whole(0),
    "checkpoint.every_steps": whole(1) | NOTHING,
    "checkpoint.every_minutes": POSITIVE,
    "checkpoint.keep": whole(1),
    "trainer.max_steps": whole(1),
    "trainer.accelerator": _ACCELERATOR,
    "trainer.devices": _DEVICES,
    "trainer.strategy": one_of("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"),
    "trainer.num_nodes": whole(1),
    "trainer.timeout_minutes": POSITIVE,
    "trainer.precision": one_of("32-true", "bf16-mixed", "16-mixed"),
    "trainer.accumulate": whole(1),
    "trainer.log_every_n_steps": whole(1),
    "trainer.deterministic": YES_NO | one_of("warn"),
    "protocol.supervised_average": one_of("labelled", "all"),
    "protocol.boundary_detector": one_of("neighbors", "laplacian"),
    "protocol.consistency_border": one_of("clip", "replicate"),
    "protocol.source_sampling": one_of("uniform", "class_balanced"),
    "protocol.pretraining": one_of("recipe", "until_first_round"),
    "protocol.score_numerics": one_of("exact", "released"),
    "protocol.pixel_grid": one_of("label", "training"),
    "protocol.loss_epsilon": NOT_NEGATIVE,
    "protocol.pixel_exclusion": NOT_NEGATIVE,
    "protocol.flip": YES_NO,
    "mode.radius": whole(0, " (k, pixels at label resolution)"),
    "mode.suppress_radius": whole(0, " (pixels at label resolution)"),
    "mode.budget": NOT_NEGATIVE,
    "mode.budget_per": one_of("image", "dataset"),
    "mode.image_cap": number("1 or more", least=1) | NOTHING,
    "setting.target_labels": one_of("revealed", "all", "none"),
    "setting.max_steps": whole(1),
    "setting.pretrain_fraction": SHARE,
    "setting.selection_fractions": _FRACTIONS,
    "paths.beginnings": TEXT | NOTHING,
    "dataset.recipe.source_free.max_steps": whole(1),
    "dataset.recipe.source_free.selection_fractions": _FRACTIONS,
    "dataset.taxonomy": Rule(
        "the name of a class table, or a description", lambda value: isinstance(value, (str, dict))
    ),
    "dataset.num_classes": whole(1),
    "dataset.static_mask": TEXT | NOTHING,
    "dataset.recipe.max_steps": whole(1),
    "dataset.recipe.pretrain_fraction": SHARE,
    "dataset.recipe.selection_fractions": _FRACTIONS,
    "dataset.recipe.source_sampling": one_of("uniform", "class_balanced"),
    "dataset.recipe.flip": YES_NO,
    "dataset.recipe.source_size": SIZE,
    "dataset.recipe.target_size": SIZE,
    "dataset.recipe.source_batch": whole(1),
    "dataset.recipe.target_batch": whole(1),
    "dataset.recipe.learning_rate": POSITIVE,
    "dataset.recipe.pixel_radius": whole(0),
    "dataset.recipe.region_side": whole(1),
    "dataset.recipe.region_pixels": whole(1),
    "dataset.recipe.transforms": _NODES,
    "logger.wandb.mode": one_of("auto", "online", "offline", "disabled"),
    "paths.output_dir": TEXT,
    "paths.data_root": TEXT,
    "checkpoint": TEXT,
    "run": TEXT,
    "input": TEXT,
    "output": TEXT,
    "logger.wandb": Rule("null or a description of a logger", lambda value: value is None or isinstance(value, dict)),
    # other commands
    "flip": YES_NO | NOTHING,
    "scale": POSITIVE | NOTHING,
    "tile": Rule(
        "null or [height, width]", lambda value: value is None or (isinstance(value, list) and len(value) == 2)
    ),
    "overlap": number("0 or more and below 1", least=0, below=1),
    "opacity": SHARE,
    "precision": one_of("32-true", "bf16-mixed", "16-mixed") | NOTHING,
    "accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "num_workers": whole(0, most=1024),
    "report": TEXT | NOTHING,
    "batch": whole(1) | NOTHING,
    "rounds": whole(1) | NOTHING,
    "cache": TEXT | NOTHING,
    "acquisitions": Rule(
        "a list of names of conf/acquisition", lambda value: value is None or isinstance(value, (list, str))
    ),
}
"""Key -> what it may be. Keys that are missing here must have the type that they have in ``conf/``."""


ALIASES: Mapping[str, str] = {
    "tau": "objective.negative_threshold",
    "alpha1": "objective.consistency_weight",
    "alpha2": "objective.negative_weight",
    "k": "mode.radius",
    "rounds": "selection_steps",
    "lr": "optimizer.learning_rate",
    "batch_size": "data.source_batch",
    "steps": "trainer.max_steps",
    "gpus": "trainer.devices",
}
"""Names from the paper and from other programs -> keys."""


def near(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: ``; did you mean X?``, or nothing where none is near.

    >>> near("trainer.max_step", ["seed", "trainer.max_steps"])
    '; did you mean trainer.max_steps?'
    >>> near("radius", ["acquisition.radius", "mode.radius", "seed"])
    '; did you mean mode.radius or acquisition.radius?'
    >>> near("xyz", ["seed"])
    ''
    """
    known = list(dict.fromkeys(names))
    found = difflib.get_close_matches(name, known, 1, 0.75)
    last = name.rpartition(".")[2]
    alias = ALIASES.get(last.replace("_", "") if last.startswith("alpha") else last)
    if not found and alias in known:
        found = [str(alias)]
    if not found:  # a key without its group, or in the wrong one
        tails = difflib.get_close_matches(last, {one.rpartition(".")[2] for one in known}, 1, 0.8)
        found = [one for one in known if one.rpartition(".")[2] in tails]
        found = sorted(found, key=lambda one: (not one.startswith("mode."), one.count(".")))[:3]
    if not found:
        found = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {' or '.join(found)}?" if found else ""


def fault(key: str, value: Any, kinds: frozenset[type] = frozenset()) -> str | None:
    """What is wrong with the value of a key.

    Args:
        key: The key, with dots.
        value: Its value, resolved and plain.
        kinds: The types that the key has in ``conf/``, for keys without a rule; none allows everything.

    Returns:
        A line that names the key, the value and what is allowed; None where nothing is wrong.
    """
    if value is None and type(None) in kinds:
        return None
    rule = RULES.get(key) or _rule_of(kinds)
    if rule is None or rule.is_good(value):
        return None
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    hint = near(str(value), rule.names) if rule.names and isinstance(value, str) else ""
    return f"{key}={shown} is not allowed; it must be {rule.allowed}{hint}"


def _rule_of(kinds: frozenset[type]) -> Rule | None:
    """The rule that the types in ``conf/`` make; None where anything goes."""
    kinds -= {type(None)}
    if kinds == {bool}:
        return YES_NO
    if kinds == {int}:
        return Rule("a whole number", _whole)
    if kinds and kinds <= {int, float}:
        return Rule("a number", is_number)
    if kinds == {str}:
        return Rule("text, or null", lambda value: value is None or isinstance(value, str))
    if kinds == {list}:
        return Rule("a list", lambda value: isinstance(value, list))
    return None


def without_effect(get: Callable[[str], Any], given: Sequence[str]) -> list[str]:
    """What the user gave and nothing reads in this combination.

    Args:
        get: The value of a key.
        given: Keys and groups that the user gave.

    Returns:
        A line for each.
    """
    labels = get("setting.target_labels")
    reasons: list[tuple[tuple[str, ...], str]] = []
    if labels in ("none", "all"):
        where = f"setting={get('setting.name')}"
        why = f"{where} asks for nothing" if labels == "none" else f"{where} has every label from the start"
        reasons.append((("mode", "acquisition", "region"), why))
        why = f"{where} trains with cross-entropy alone"
        reasons.append((("objective", "protocol.boundary_only"), why))
        reasons.append((("protocol.boundary_detector", "protocol.consistency_border"), why))
    if labels == "revealed" and get("selection_steps") is not None and not len(get("selection_steps")):
        reasons.append(
            (("mode", "acquisition", "region", "dataset.static_mask"), "selection_steps=[] asks for nothing")
        )
    if labels == "none":
        reasons.append((("data.target_batch",), f"setting={get('setting.name')} reads no target image in training"))
    if labels == "revealed":
        shape = str(get("region._target_")).rpartition(".")[2]
        side, pixels = "dataset.recipe.region_side", "dataset.recipe.region_pixels"
        unread = {"Square": (side, pixels), "Rectangles": (pixels,), "Superpixels": (side,)}.get(shape, ())
        reasons.append((unread, f"regions of the shape {shape} are not cut by it"))
        if shape in ("Rectangles", "Superpixels"):
            reasons.append(
                (("mode.radius", "mode.suppress_radius"), "regions of a fixed partition have no windows around picks")
            )
        if get("objective.negative_weight") == 0:
            reasons.append((("objective.negative_threshold",), "objective.negative_weight=0 switches the term off"))
        if get("objective.consistency_weight") == 0:
            reasons.append(
                (
                    ("protocol.boundary_only", "protocol.boundary_detector", "protocol.consistency_border"),
                    "objective.consistency_weight=0 switches the term off",
                )
            )
        elif get("protocol.boundary_only") is False:
            reasons.append((("protocol.boundary_detector",), "protocol.boundary_only=false runs over all pixels"))
    if get("start.labels") is None:
        reasons.append((("start.ids", "start.missing_masks"), "start.labels is not given"))
    if get("mode.pixel") is False:
        why = f"mode={get('mode.name')} asks for regions, not for pixels"
        reasons.append((("protocol.pixel_grid", "protocol.pixel_exclusion", "dataset.recipe.pixel_radius"), why))
    if get("setting.uses_source") is False:
        why = f"setting={get('setting.name')} reads no source image"
        keys = ("data.source_size", "data.source_batch", "objective.consistency_weight", "protocol.source_sampling")
        reasons.append(
            ((*keys, "protocol.boundary_only", "protocol.boundary_detector", "protocol.consistency_border"), why)
        )
        reasons.append((("dataset.recipe.max_steps", "dataset.recipe.selection_fractions"), f"{why}: see source_free"))
    elif get("setting.uses_source"):
        reasons.append((("dataset.recipe.source_free",), f"setting={get('setting.name')} is another one"))
    if get("model.checkpoint"):
        reasons.append((("model.weights",), "model.checkpoint brings the weights of the whole network"))
    if get("selection_steps") is not None:
        reasons.append((("dataset.recipe.selection_fractions",), "selection_steps is given"))
    if get("pretrain_steps") is not None:
        reasons.append((("dataset.recipe.pretrain_fraction",), "pretrain_steps is given"))
    found = []
    for key in given:
        for prefixes, why in reasons:
            if any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes):
                found.append(f"{key} has no effect: {why}")
                break
    return found
