"""The table of keys: everything that the package knows about a configuration key, in one entry each.

``conf/`` says which keys exist, with their types and defaults. :data:`TABLE` adds what a yaml file cannot say. A
test keeps the two in step: every key of ``conf/`` has an entry, and every entry stands for a key of ``conf/``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from ripu.config import value_rules as rules
from ripu.config.key_properties import GIVEN, Key, Target, Unused
from ripu.config.value_rules import NOT_NEGATIVE, NOTHING, POSITIVE, SIZE, TEXT, YES_NO, Rule, number, one_of, whole

_ASKS_NOTHING = (
    Unused({"setting.target_labels": "none"}, "setting={setting.name} queries nothing"),
    Unused({"setting.target_labels": "all"}, "setting={setting.name} has every label from the start"),
    Unused({"setting.target_labels": "unlabelled"}, "setting={setting.name} queries nothing"),
    Unused({"selection_steps": []}, "selection_steps=[] queries nothing"),
)
_FIXED_SHAPE = Unused(
    {"region._target_": ("ripu.regions.Rectangles", "ripu.regions.Superpixels", "ripu.regions.MergedSuperpixels")},
    "regions of a fixed partition have no window around a pick",
)
_OTHER_SHAPE = "regions of this shape ({region._target_}) do not depend on it"
_NO_RECTANGLES = Unused(
    {"region._target_": ("ripu.regions.Square", "ripu.regions.Superpixels", "ripu.regions.MergedSuperpixels")},
    _OTHER_SHAPE,
)
_NO_SUPERPIXELS = Unused({"region._target_": ("ripu.regions.Square", "ripu.regions.Rectangles")}, _OTHER_SHAPE)
_STEPS_GIVEN = {
    key: Unused({f"{key}_steps": GIVEN}, f"{key}_steps is given") for key in ("pretrain", "selection", "renewal")
}
_NO_REVEALED = Unused(
    {"setting.target_labels": ("all", "none", "unlabelled")}, "setting={setting.name} reveals no label in rounds"
)
_CROSS_ENTROPY = Unused(
    {"setting.target_labels": ("none", "all")}, "setting={setting.name} trains with cross-entropy alone"
)
_OTHER_TERMS = Unused({"method._target_": GIVEN}, "method={method.name} has terms of its own")
_NO_TARGET = Unused({"setting.target_labels": "none"}, "setting={setting.name} reads no target image in training")
_NO_SOURCE = Unused({"setting.uses_source": False}, "setting={setting.name} reads no source image")
_NO_CONSISTENCY = (
    _OTHER_TERMS,
    _CROSS_ENTROPY,
    Unused({"objective.consistency_weight": 0}, "objective.consistency_weight=0 switches the term off"),
)
_NO_NEGATIVE = (
    _OTHER_TERMS,
    _CROSS_ENTROPY,
    Unused({"objective.negative_weight": 0}, "objective.negative_weight=0 switches the term off"),
)
_NO_POLY = Unused(
    {"optimizer.schedule": ("cosine", "constant")}, "optimizer.schedule={optimizer.schedule} is another schedule"
)
_NO_PIXELS = Unused({"mode.pixel": False}, "mode={mode.name} queries regions, not pixels")
_EXITS = Unused({"oracle.wait": "exit"}, "oracle.wait=exit ends the run instead of holding it")
_OTHER_LENGTH = Unused({"setting.uses_source": False}, "setting={setting.name} has its own: see {setting.name}")
_OTHER_SETTING = Unused({"setting.uses_source": True}, "setting={setting.name} is another one")
_NOT_SOURCE_FREE = (_OTHER_SETTING, Unused({"setting.name": "target_only"}, "setting={setting.name} is another one"))
_NOT_TARGET_ONLY = (_OTHER_SETTING, Unused({"setting.name": "source_free"}, "setting={setting.name} is another one"))

# Groups whose keys have something in common.
_technical = partial(Key, may_change=True, is_compared=False)  # says where and how fast a run goes, not what it learns
_outside = partial(_technical, before_rounds=False)  # not even a step depends on it
_evaluation = partial(Key, may_change=True)
_asking = partial(Key, before_rounds=False, unused=_ASKS_NOTHING)
_person = partial(Key, may_change=True, is_compared=False, before_rounds=False, unused=_ASKS_NOTHING)
_masks = partial(Key, unused=(Unused({"start.labels": None}, "start.labels is not given"),))
_objective = partial(Key, unused=(_OTHER_TERMS, _CROSS_ENTROPY))
_copied = partial(Key, may_change=True, is_compared=False)  # what it decides stands in another key; older runs lack it

TABLE: Mapping[str, Key] = {
    # The place and the speed of a run
    "seed": Key(rules.SEED, is_compared=False),
    "resume": _outside(),
    "dry_run": _technical(),
    "paths.output_dir": _outside(TEXT),
    "paths.data_root": _outside(TEXT),
    "paths.beginnings": _outside(TEXT | NOTHING),
    "logger.*": _outside(target="any"),
    "logger.wandb": _outside(
        Rule("null or a description of a logger", lambda value: value is None or isinstance(value, dict))
    ),
    "logger.wandb.mode": _outside(one_of("auto", "online", "offline", "disabled")),
    "checkpoint.every_steps": _outside(whole(1) | NOTHING),
    "checkpoint.every_minutes": _outside(POSITIVE),
    "checkpoint.keep": _outside(whole(1)),
    "trainer.max_steps": Key(whole(1)),
    "trainer.accumulate": Key(whole(1)),  # the images of a step
    "trainer.accelerator": _technical(rules.ACCELERATOR),
    "trainer.devices": _technical(rules.DEVICES),  # compared is the number of processes
    "trainer.strategy": Key(
        one_of("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"), may_change=True
    ),
    "trainer.num_nodes": Key(whole(1), may_change=True),
    "trainer.timeout_minutes": _technical(POSITIVE),
    "trainer.precision": Key(one_of("32-true", "bf16-mixed", "16-mixed"), may_change=True),
    "trainer.channels_last": _technical(),
    "trainer.compile": _technical(),
    "trainer.log_every_n_steps": _technical(whole(1)),
    "trainer.deterministic": _technical(YES_NO | one_of("warn")),
    "evaluation.batch": _technical(whole(1)),
    "evaluation.flip": _evaluation(YES_NO),
    "evaluation.save_predictions": _technical(),
    "evaluation.pictures": _technical(whole(0)),
    "evaluation.gallery": _technical(whole(0)),
    "data.num_workers": _outside(whole(0, most=1024)),
    "data.cache": _outside(TEXT | NOTHING),
    "data.unreadable": Key(one_of("stop", "skip"), may_change=True),
    # Rounds
    "budget": Key(  # 0 is refused with the words of the mode
        number("above 0: mode=ra a share of the image, mode=pa pixels per image, mode=images a share of them", least=0),
        before_rounds=False,
    ),
    "selection_steps": Key(rules.STEPS | NOTHING, before_rounds=False),  # the first round counts by itself
    "pretrain_steps": Key(whole(0) | NOTHING),
    "renewal_steps": Key(rules.STEPS | NOTHING),
    "mode.*": _asking(),
    "mode.radius": _asking(whole(0, " (k, pixels at label resolution)"), unused=(*_ASKS_NOTHING, _FIXED_SHAPE)),
    "mode.suppress_radius": _asking(whole(0, " (pixels at label resolution)"), unused=(*_ASKS_NOTHING, _FIXED_SHAPE)),
    "mode.budget": _asking(NOT_NEGATIVE),
    "mode.budget_per": _asking(one_of("image", "dataset")),
    "mode.image_cap": _asking(number("1 or more", least=1) | NOTHING),
    "acquisition.*": _asking(target="score"),
    "first_round.*": _asking(target="score"),
    "oracle.*": _asking(target="oracle"),
    "oracle.wait": _person(one_of("exit", "hold")),
    "oracle.hold_minutes": _person(POSITIVE, unused=(_EXITS,)),
    "oracle.serve": _person(YES_NO, unused=(_EXITS,)),
    "oracle.hours": _person(POSITIVE | NOTHING),
    "oracle.overlap": _person(rules.SHARE),
    "oracle.suggest": _person(YES_NO),
    "oracle.keys": _person(
        Rule("null or a letter for each class", lambda value: value is None or isinstance(value, dict)), is_open=True
    ),
    "region.*": _asking(target="shape"),
    # The start of training
    "start.run": Key(TEXT | NOTHING),
    "start.labels": Key(TEXT | NOTHING),
    "start.ids": _masks(one_of("train", "label")),
    "start.missing_masks": _masks(one_of("refuse", "allow")),
    "model.*": Key(
        target="network", unused=(Unused({"setting.name": None}, "this command makes no network of its own"),)
    ),
    "model.checkpoint": Key(TEXT | NOTHING),
    "model.weights": Key(
        unused=(Unused({"model.checkpoint": GIVEN}, "model.checkpoint contains the weights of the whole network"),)
    ),
    "model.train_encoder": Key(one_of("all", "lora", "none")),
    "model.lora_rank": Key(
        whole(1),
        unused=(
            Unused(
                {"model.train_encoder": ("all", "none")}, "model.train_encoder={model.train_encoder} adds no adapters"
            ),
        ),
    ),
    # Training
    "setting.name": Key(),
    "setting.target_labels": Key(one_of("revealed", "all", "none", "unlabelled")),
    "setting.uses_source": Key(),
    "setting.needs_network": _copied(),  # setting.name tells it
    "setting.max_steps": Key(whole(1)),
    "setting.pretrain_fraction": Key(rules.SHARE),
    "setting.selection_fractions": Key(rules.FRACTIONS),
    "method.*": Key(target="objective"),
    "method.name": Key(TEXT),
    "method.target_labels": Key(rules.some_of("revealed", "all", "none", "unlabelled")),
    "method.labelled_images": Key(unused=(_NO_REVEALED,)),
    "method.selection_fractions": Key(
        rules.FRACTIONS | NOTHING, before_rounds=False, unused=(_STEPS_GIVEN["selection"], _NO_REVEALED)
    ),
    "method.renewal_fractions": Key(rules.FRACTIONS, unused=(_STEPS_GIVEN["renewal"], _CROSS_ENTROPY)),
    "method.pretrain_fraction": Key(rules.SHARE | NOTHING, unused=(_STEPS_GIVEN["pretrain"], _CROSS_ENTROPY)),
    "method.agreement_weight": Key(NOT_NEGATIVE),
    "method.second_weight": Key(NOT_NEGATIVE),
    "method.hyperbolic_weight": Key(NOT_NEGATIVE),
    "method.dimensions": Key(whole(1)),
    "method.curvature": Key(POSITIVE),
    "method.second_adversarial_weight": Key(NOT_NEGATIVE),
    "method.dropout": Key(rules.BELOW_ONE),
    "method.class_balance": Key(rules.SHARE),
    "method.entropy_weight": Key(NOT_NEGATIVE),
    "method.negative_weight": Key(NOT_NEGATIVE),
    "method.rank_spread": Key(whole(0)),
    "method.num_decoders": Key(whole(1)),
    "method.temperature": Key(POSITIVE),
    "method.momentum": Key(rules.SHARE),
    "method.ce_weight": Key(NOT_NEGATIVE),
    "method.reverse_weight": Key(NOT_NEGATIVE),
    "method.consistency_weight": Key(NOT_NEGATIVE),
    "method.jitter": Key(rules.SHARE),
    "method.blur": Key(rules.SHARE),
    "method.teacher_decay": _copied(rules.BETWEEN),
    "method.previous": Key(TEXT | NOTHING),
    "method.translated": Key(TEXT | NOTHING),
    "method.rank": Key(rules.BELOW_ONE),
    "method.cap": Key(rules.PART),
    "method.threshold": Key(rules.SHARE),
    "method.distillation_weight": Key(NOT_NEGATIVE),
    "method.stability_weight": Key(NOT_NEGATIVE),
    "method.share": Key(rules.PART),
    "method.share_step": Key(rules.SHARE),
    "method.most_share": Key(rules.PART),
    "method.regularizer": Key(NOT_NEGATIVE),
    "method.first_phase": Key(whole(0)),
    "method.vote_radius": Key(rules.PART),
    "method.vote_passes": Key(whole(0)),
    "method.vote_limit": Key(rules.SHARE),
    "method.easy_share": Key(rules.PART),
    "method.easy_step": Key(rules.SHARE),
    "method.bootstrap": Key(rules.SHARE),
    "method.adversarial_weight": Key(NOT_NEGATIVE),
    "method.presence_weight": Key(NOT_NEGATIVE),
    "method.sharpness": Key(POSITIVE),
    "method.prior_share": Key(rules.SHARE),
    "method.hidden_share": Key(rules.SHARE),
    "method.discrepancy_weight": Key(NOT_NEGATIVE),
    "method.kept_lr_factor": Key(POSITIVE),
    "method.anchor_weight": Key(NOT_NEGATIVE),
    "method.anchor_decay": Key(rules.SHARE),
    "method.num_anchors": Key(whole(1)),
    "method.min_cells": Key(whole(1)),
    "method.anchor_seed": Key(whole(0)),
    "objective.*": _objective(target="objective"),
    "objective.consistency_weight": _objective(NOT_NEGATIVE, unused=(_OTHER_TERMS, _CROSS_ENTROPY, _NO_SOURCE)),
    "objective.negative_weight": _objective(NOT_NEGATIVE),
    "objective.negative_threshold": _objective(
        number("between 0 and 1 (tau; the paper: 0.05)", above=0, below=1),
        unused=_NO_NEGATIVE,
    ),
    "objective.class_balance": Key(rules.SHARE, unused=(_OTHER_TERMS,)),
    "objective.pseudo_weight": _objective(NOT_NEGATIVE),
    "objective.confidence": _objective(rules.BELOW_ONE),
    "objective.mix": _objective(YES_NO),
    "objective.jitter": _objective(rules.SHARE),
    "objective.blur": _objective(rules.SHARE),
    "objective.teacher_decay": _copied(rules.BETWEEN),
    "ema.decay": Key(rules.BETWEEN | NOTHING),
    "optimizer.*": Key(target="optimizer", unused=(Unused({"setting.name": None}, "this command trains nothing"),)),
    "optimizer.learning_rate": Key(POSITIVE),
    "optimizer.head_lr_factor": Key(POSITIVE),
    "optimizer.layer_decay": Key(
        number("above 0, 1 at most", above=0, most=1),
        unused=(Unused({"model.train_encoder": "none"}, "model.train_encoder=none trains no layer of the encoder"),),
    ),
    "optimizer.momentum": Key(rules.BELOW_ONE | NOTHING),
    "optimizer.betas": Key(rules.BETAS | NOTHING),
    "optimizer.weight_decay": Key(NOT_NEGATIVE),
    "optimizer.norm_decay": Key(unused=(Unused({"optimizer.weight_decay": 0}, "optimizer.weight_decay=0"),)),
    "optimizer.clip_norm": Key(POSITIVE | NOTHING),
    "optimizer.schedule": Key(one_of("poly", "cosine", "constant")),
    "optimizer.warmup_fraction": Key(rules.BELOW_ONE),
    "optimizer.poly_power": Key(NOT_NEGATIVE, unused=(_NO_POLY,)),
    "optimizer.poly_horizon_factor": Key(
        number("1 or more: below, the rest of the run would train at rate 0", least=1), unused=(_NO_POLY,)
    ),
    "data.source_size": Key(SIZE, unused=(_NO_SOURCE,)),
    "data.target_size": Key(SIZE),
    "data.source_batch": Key(whole(1, most=65536), unused=(_NO_SOURCE,)),
    "data.target_batch": Key(
        whole(1, most=65536),
        unused=(_NO_TARGET,),
    ),
    "data.transforms": Key(rules.NODES, target="any"),
    "data.fit": Key(one_of("stretch", "pad")),
    "data.bands": Key(rules.BANDS | NOTHING),
    "data.value_range": Key(one_of("bit_depth", "percentiles") | rules.RANGE),
    # A run fills it in; numbers of one's own belong in data.value_range.
    "data.measured_range": Key(NOTHING, may_change=True, is_compared=False),
    "protocol.name": Key(),
    "protocol.supervised_average": Key(one_of("labelled", "all")),
    "protocol.boundary_only": Key(unused=(*_NO_CONSISTENCY, _NO_SOURCE)),
    "protocol.boundary_detector": Key(
        one_of("neighbors", "laplacian"),
        unused=(
            *_NO_CONSISTENCY,
            Unused({"protocol.boundary_only": False}, "protocol.boundary_only=false runs over all pixels"),
            _NO_SOURCE,
        ),
    ),
    "protocol.consistency_border": Key(one_of("clip", "replicate"), unused=(*_NO_CONSISTENCY, _NO_SOURCE)),
    "protocol.loss_epsilon": Key(NOT_NEGATIVE, unused=_NO_NEGATIVE),
    "protocol.source_sampling": Key(one_of("uniform", "class_balanced"), unused=(_NO_SOURCE,)),
    "protocol.norm_statistics": Key(one_of("target", "both"), unused=(_NO_SOURCE, _NO_TARGET)),
    "protocol.flip": _evaluation(YES_NO),
    "protocol.pretraining": Key(one_of("recipe", "until_first_round")),
    "protocol.score_numerics": Key(one_of("exact", "released")),
    "protocol.pixel_exclusion": Key(NOT_NEGATIVE, unused=(_NO_PIXELS,)),
    "protocol.pixel_grid": Key(one_of("label", "training"), unused=(_NO_PIXELS,)),
    # Data sets
    "dataset.*": Key(),
    "dataset.taxonomy": Key(
        Rule("the name of a class table, or a description", lambda value: isinstance(value, (str, dict))),
        target="class table",
    ),
    "dataset.num_classes": Key(whole(1)),
    **{f"dataset.{name}": Key(is_open=True) for name in ("classes", "ids", "subsets", "color_map")},
    **{
        f"dataset.{name}": Key(
            Rule("a list, or null for all others", lambda value: isinstance(value, (list, type(None))))
        )
        for name in ("ignore_ids", "ignore_colors")
    },
    "dataset.static_mask": Key(
        TEXT | NOTHING, unused=(Unused({"selection_steps": []}, "selection_steps=[] queries nothing"),)
    ),
    "dataset.root": _technical(),
    **{f"dataset.{part}": Key(target="loader") for part in ("prepare", "source", "target", "val")},
    **{f"dataset.{part}.root": _technical() for part in ("prepare", "source", "target", "val")},
    "dataset.recipe.max_steps": Key(whole(1), unused=(_OTHER_LENGTH,)),
    "dataset.recipe.pretrain_fraction": Key(
        rules.SHARE,
        unused=(
            _STEPS_GIVEN["pretrain"],
            Unused({"method.pretrain_fraction": GIVEN}, "method={method.name} has its own"),
        ),
    ),
    "dataset.recipe.selection_fractions": Key(rules.FRACTIONS, unused=(_OTHER_LENGTH, _STEPS_GIVEN["selection"])),
    "dataset.recipe.source_free.max_steps": _copied(whole(1), unused=_NOT_SOURCE_FREE),
    "dataset.recipe.source_free.selection_fractions": _copied(rules.FRACTIONS, unused=_NOT_SOURCE_FREE),
    "dataset.recipe.target_only.max_steps": _copied(whole(1), unused=_NOT_TARGET_ONLY),
    "dataset.recipe.target_only.selection_fractions": _copied(rules.FRACTIONS, unused=_NOT_TARGET_ONLY),
    "dataset.recipe.source_sampling": Key(one_of("uniform", "class_balanced"), is_optional=True),
    "dataset.recipe.flip": _evaluation(YES_NO, is_optional=True),
    "dataset.recipe.source_size": Key(SIZE),
    "dataset.recipe.target_size": Key(SIZE),
    "dataset.recipe.source_batch": Key(whole(1)),
    "dataset.recipe.target_batch": Key(whole(1)),
    "dataset.recipe.learning_rate": Key(
        POSITIVE, unused=(Unused({"optimizer._target_": ("torch.optim.AdamW",)}, "give optimizer.learning_rate"),)
    ),
    "dataset.recipe.class_balance": _copied(rules.SHARE, is_optional=True),
    "dataset.recipe.ema_decay": _copied(rules.BETWEEN | NOTHING, is_optional=True),
    "dataset.recipe.pixel_radius": Key(whole(0), unused=(_NO_PIXELS,)),
    "dataset.recipe.region_side": _copied(whole(1), unused=(_NO_RECTANGLES,)),
    "dataset.recipe.region_pixels": _copied(whole(1), unused=(_NO_SUPERPIXELS,)),
    "dataset.recipe.fit": Key(one_of("stretch", "pad"), is_optional=True),
    "dataset.recipe.transforms": Key(rules.NODES, target="any"),
    # Commands other than ripu.train
    "checkpoint": Key(TEXT),
    "run": Key(TEXT),
    "input": Key(TEXT),
    "output": Key(TEXT),
    "report": Key(TEXT | NOTHING),
    "cache": Key(TEXT | NOTHING),
    "format": Key(one_of("onnx", "torch_export", "huggingface")),
    "write": Key(rules.some_of("labelIds", "trainIds", "color", "overlay", "uncertainty")),
    "overwrite": Key(),
    "save_predictions": Key(),
    "unreadable": Key(one_of("stop", "skip")),
    "size": Key(SIZE | NOTHING),
    "flip": Key(YES_NO | NOTHING),
    "value_range": Key(one_of("bit_depth") | rules.RANGE | NOTHING),
    "max_pixels": Key(whole(1)),
    "scale": Key(number("above 0, 16 at most", above=0, most=16) | NOTHING),
    "tile": Key(SIZE | NOTHING),
    "overlap": Key(number("between 0 and 0.9", least=0, most=0.9)),
    "opacity": Key(rules.SHARE),
    "precision": Key(one_of("32-true", "bf16-mixed", "16-mixed") | NOTHING),
    "accelerator": Key(rules.ACCELERATOR),
    "num_workers": Key(whole(0, most=1024)),
    "batch": Key(whole(1) | NOTHING),
    "rounds": Key(whole(1) | NOTHING),
    "acquisitions": Key(
        Rule("a list of names of conf/acquisition", lambda value: value is None or isinstance(value, (list, str)))
    ),
}
"""Properties by key. ``group.*`` stands for every key of the group that has no entry of its own."""

_UNKNOWN = Key()
"""The properties of a key without an entry, e.g. one that only an older version had: it counts in full."""


def entry_of(key: str) -> str | None:
    """Return the name of the entry of :data:`TABLE` that describes a key, or a group; None if it has none."""
    if key in TABLE:
        return key
    group = key
    while group:
        if f"{group}.*" in TABLE:
            return f"{group}.*"
        group = group.rpartition(".")[0]
    return None


def key_of(name: str) -> Key:
    """Return the properties of a key, or of a group; the user's own places of files are known by their names."""
    entry = entry_of(name)
    if entry is None or (entry != name and entry.endswith(".*")):
        if name.startswith(("paths.", "checkpoint.")):
            return _outside()
        if name.endswith(".root"):
            return _technical()
    return TABLE.get(entry or "", _UNKNOWN)


def is_own_word(name: str) -> bool:
    """Return whether a key is the user's own word, or may be given although no yaml file has it."""
    return key_of(name).is_optional or any(TABLE[key].is_open for key in _with_parents(name) if key in TABLE)


def target_of(name: str) -> Target:
    """Return the kind of object that ``_target_`` may name in a node of a configuration from a file."""
    kinds = {key_of(key).target for key in _with_parents(name)}
    if "any" in kinds:
        return "any"
    if "score" in kinds:  # and whatever is described inside a score is one
        return "score"
    return key_of(name).target if entry_of(name) in (name, f"{name}.*") else ""


def _with_parents(name: str) -> list[str]:
    return [name[: match.start()] for match in re.finditer(r"\.|$", name)]


def rule_of(key: str, types: frozenset[type] = frozenset()) -> Rule | None:
    """Return the rule of a key's values; without one, that of its ``types`` in ``conf/``, or None if anything goes."""
    return key_of(key).rule or rules.of_types(types)
