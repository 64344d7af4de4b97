"""``python -m ripu.replay run=RUN acquisitions=[ripu,entropy,random]``: ask again, without training.

The target images of a run are scored by its network under other scores, windows, region shapes or budgets. A table says
what each would have revealed, and how much of it the run has asked about as well.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.interrupt import guard_start

guard_start(__name__)  # before the imports that take long

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ripu import build, reopen
from ripu.commandline import command
from ripu.terminal import Progress
from ripu.untrusted import UntrustedError, read_array, read_json

if TYPE_CHECKING:  # torch takes long to import: only when something is replayed
    import torch
    from torch import Tensor

    from ripu.datamodule import RipuDataModule
    from ripu.datasets.scenes import SceneDataset
    from ripu.datasets.unreadable import Fault
    from ripu.labelstore import LabelStore

_log = logging.getLogger(__name__)

MEMORY_BYTES = 2 << 30
"""Without a cache, logits that take up to this much are kept in memory; others are computed again for every round."""

OWN = "the run"
"""Name of the run's own picks in tables."""

INPUTS_FILE = "replay-inputs.json"
"""What the rounds of a replay depend on, written before the first of them."""


def replay(cfg: DictConfig) -> dict[str, Any]:
    """Replay the selection of one run.

    Args:
        cfg: The composed configuration of ``conf/replay.yaml``.

    Returns:
        The content of ``replay.json``.

    Raises:
        ConfigError: The run has no usable checkpoint, a name is unknown, settings do not go together, or the folder holds
            another replay.
    """
    run, out = Path(cfg.run), Path(cfg.paths.output_dir)
    path = Path(cfg.checkpoint) if cfg.checkpoint is not None else run / "checkpoints" / "final.ckpt"
    if not path.exists():
        raise build.ConfigError(
            f"run={cfg.run}: {path} does not exist; name the folder of a finished run, or a checkpoint="
        )
    if (out / "replay.json").exists():
        raise build.ConfigError(f"paths.output_dir={out} holds a replay already; name another folder")

    from ripu.labelstore import LabelStore
    from ripu.labelstore.files import file_digest
    from ripu.report.storage import write_json
    from ripu.report.summary import left_out
    from ripu.runs import provenance

    device = reopen.make_device(cfg.accelerator)
    stored = reopen.read_checkpoint(path)
    config = stored["hyper_parameters"]["config"]
    jobs = {name: _config(config, cfg, name, node) for name, node in _acquisitions(cfg, config).items()}
    base = next(iter(jobs.values()))
    for job in jobs.values():
        build.make_region(job)
    num_rounds = _num_rounds(cfg, base)
    asked: dict[str, LabelStore] = {}
    facts: dict[str, dict[str, Any]] = {}
    if (run / "labels").is_dir():
        asked[OWN] = LabelStore.open(run / "labels")
        facts[OWN] = {}
    digest = file_digest(path)
    inputs = _inputs(digest, jobs, num_rounds, asked.get(OWN))
    _check_same(inputs, out, jobs)
    scenes = build.make_scenes(base)
    source = _logit_source(cfg, base, scenes, stored, device)
    if cfg.cache is not None:
        source.keep_in(Path(cfg.cache), digest)
    write_json(out / INPUTS_FILE, inputs)
    unreadable: dict[tuple[str, str], dict[str, str]] = {}
    for name, job in jobs.items():
        started = time.monotonic()
        asked[name], picks, faults = _ask_again(name, job, scenes, source, out / name, num_rounds, asked.get(OWN))
        _tell(faults, unreadable)
        facts[name] = {"picks": picks, "seconds": round(time.monotonic() - started, 1)}
    comparison = compare(asked, scenes.target, num_rounds)
    results: dict[str, Any] = {
        "run": str(run),
        "checkpoint": str(path),
        "rounds": num_rounds,
        "mode": base.mode.name,
        "radius": base.mode.radius,
        "suppress_radius": base.mode.suppress_radius,
        "budget": base.budget,
        "budget_per": build.make_query(base).budget_per,
        "region": None if base.get("region") is None else OmegaConf.to_container(base.region, resolve=True),
        "images": len(scenes.target),
        **comparison,
        "unreadable": [unreadable[key] for key in sorted(unreadable)],
        "provenance": provenance(),
    }
    for name, more in facts.items():
        results["asked"][name] |= more
    write_json(out / "replay.json", results)
    print(summary(results) + left_out(results["unreadable"]))
    print(f"\nin {out}: replay.json, and a label store for each score: {', '.join(f'{name}/labels' for name in jobs)}")
    return results


def _num_rounds(cfg: DictConfig, base: DictConfig) -> int:
    known = build.make_query(base).num_rounds
    num_rounds = known if cfg.rounds is None else int(cfg.rounds)
    if not 1 <= num_rounds <= known:
        raise build.ConfigError(f"rounds={cfg.rounds} must lie in 1..{known}, the number of rounds of the run")
    return num_rounds


def _logit_source(
    cfg: DictConfig, base: DictConfig, scenes: build.Scenes, stored: Mapping[str, Any], device: torch.device
) -> LogitSource:
    """The network of the run over its target images."""
    module = build.make_module(base, scenes.taxonomy, is_fresh=False)
    module.load_state_dict(stored["state_dict"])
    module.to(device).eval()
    batch = base.evaluation.batch if cfg.batch is None else cfg.batch
    datamodule = reopen.make_reader(base, scenes.target.without_labels(), scenes.val, cfg.num_workers, batch)
    return LogitSource(module, datamodule, device, scenes.taxonomy.num_classes)


def _ask_again(
    name: str,
    job: DictConfig,
    scenes: build.Scenes,
    source: LogitSource,
    folder: Path,
    num_rounds: int,
    own: LabelStore | None,
) -> tuple[LabelStore, int, list[Fault]]:
    """All rounds of one score: the store with what it asked, the number of picks, and files that could not be read."""
    with build.make_store(job, scenes, folder, write=True) as store:
        carry_along(own, store)
        engine = build.make_engine(job, scenes, store)
        assert engine is not None
        picks = 0
        faults: list[Fault] = []
        for index in range(num_rounds):
            tally = engine.run(
                store,
                index,
                index + 1,
                network=source.network,
                pool=source.pool(with_images=engine.needs_image),
                device=source.device,
                progress=Progress(f"{name}, round {index + 1} of {num_rounds}", len(scenes.target)),
            )
            picks += tally.picks
            faults += tally.unreadable
    return store, picks, faults


def _tell(faults: Iterable[Fault], told: dict[tuple[str, str], dict[str, str]]) -> None:
    """Tell of files that could not be read, of each once."""
    for fault in faults:
        if (fault.part, fault.file) not in told:
            told[fault.part, fault.file] = fault.to_json()
            _log.warning("%s: %s; nothing is asked of it (data.unreadable=skip)", fault.part, fault.cause)


# ------------------------------------------------------------------------------------------------- a replay that goes on


def _inputs(
    checkpoint: str, jobs: Mapping[str, DictConfig], num_rounds: int, own: LabelStore | None
) -> dict[str, Any]:
    """What the rounds of a replay depend on; the rest of its configuration is the checkpoint's."""
    base = next(iter(jobs.values()))
    return {
        "checkpoint_sha256": checkpoint,
        "begins_with_sha256": [] if own is None else [event.content_sha256 for event in own.log.carried],
        "rounds": num_rounds,
        "budget": base.budget,
        "mode": OmegaConf.to_container(base.mode, resolve=True),
        "region": None if base.get("region") is None else OmegaConf.to_container(base.region, resolve=True),
        "acquisition": {name: OmegaConf.to_container(job.acquisition, resolve=True) for name, job in jobs.items()},
    }


def _check_same(inputs: Mapping[str, Any], out: Path, names: Iterable[str]) -> None:
    """Refuse a folder with rounds of another replay: they would stand, and the table would mix both."""
    from ripu.report.collect import leaves

    record, remedy = out / INPUTS_FILE, "name another folder, or remove this one"
    if not record.exists():
        if any((out / name / "labels").exists() for name in names):
            raise build.ConfigError(f"paths.output_dir={out} holds label stores, and no {INPUTS_FILE} says of what; {remedy}")
        return
    try:
        before = read_json(record)
    except UntrustedError as error:
        raise build.ConfigError(f"paths.output_dir={out}: {error}; {remedy}") from error
    old, new = leaves(before) if isinstance(before, dict) else {}, leaves(inputs)
    differs = [
        key.removesuffix("_sha256") + ("" if key.endswith("_sha256") else f": {old.get(key)} -> {new.get(key)}")
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differs:
        raise build.ConfigError(
            f"paths.output_dir={out} holds part of a replay with other inputs ({'; '.join(differs[:5])}); {remedy}, or repeat "
            "the command that it was begun with"
        )


# ------------------------------------------------------------------------------------------------------- what to replay


def _acquisitions(cfg: DictConfig, config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration nodes of the scores by name, interpolations unresolved."""
    if cfg.acquisitions is not None and cfg.acquisition is not None:
        raise build.ConfigError(
            f"acquisition=... and acquisitions={list(cfg.acquisitions)} are both given; give one of them"
        )
    if cfg.acquisitions is not None:
        folder = Path(build.config_dir()) / "acquisition"
        names = [cfg.acquisitions] if isinstance(cfg.acquisitions, str) else [str(name) for name in cfg.acquisitions]
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        unknown = [name for name in names if name not in known]
        if unknown or not names or len(set(names)) < len(names):
            raise build.ConfigError(f"acquisitions={names} must be different names of {known}")
        return {name: OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml")) for name in names}
    if cfg.acquisition is not None:
        from hydra.core.hydra_config import HydraConfig

        node = OmegaConf.to_container(cfg.acquisition, resolve=False)
        assert isinstance(node, dict)
        choice = HydraConfig.get().runtime.choices.get("acquisition") if HydraConfig.initialized() else None
        return {str(choice or _class_name(node)): node}
    node = dict(config["acquisition"])
    for key in ("radius", "pixel"):  # resolved in the run; follow the mode where they did so there
        if key in node and node[key] == config["mode"][key]:
            node[key] = f"${{mode.{key}}}"
    return {_class_name(node): node}


def _class_name(node: Mapping[Any, Any]) -> str:
    return str(node["_target_"]).rsplit(".", 1)[-1]


def _config(config: Mapping[str, Any], cfg: DictConfig, name: str, acquisition: Any) -> DictConfig:
    """The configuration of the run with what is replayed differently."""
    job = OmegaConf.create(dict(config))
    if cfg.paths.data_root is not None:
        from ripu.evaluate import move_data

        move_data(job, str(cfg.paths.data_root))
    given = OmegaConf.to_container(cfg.mode, resolve=False)
    assert isinstance(given, dict)
    given = {key: value for key, value in given.items() if value is not None}
    if "name" in given:
        job.mode = given
        job.budget = job.mode.budget
    else:
        job.mode = OmegaConf.merge(job.mode, given)
        if "radius" in given and "suppress_radius" not in given:
            exclusion = job.protocol.get("pixel_exclusion", 1) if job.mode.pixel else 2
            job.mode.suppress_radius = exclusion * given["radius"]
    if cfg.region is not None:
        job.region = OmegaConf.to_container(cfg.region, resolve=False)
    elif job.get("region") is not None and "radius" in job.region:
        job.region.radius = job.mode.radius
    if cfg.budget is not None:
        job.budget = cfg.budget
    if job.setting.target_labels != "revealed":  # a run without rounds: those that it would have had
        recipe = job.dataset.recipe
        job.setting = {
            "name": "active",
            "target_labels": "revealed",
            "uses_source": True,
            "max_steps": job.trainer.max_steps,
            "pretrain_fraction": recipe.pretrain_fraction,
            "selection_fractions": recipe.selection_fractions,
        }
    if job.get("selection_steps") is not None and not job.selection_steps:  # nor had one that trained on given labels
        job.selection_steps = None
    job.acquisition = acquisition
    return job


def carry_along(own: LabelStore | None, store: LabelStore) -> None:
    """Begin a replay with what the run itself began with (``start.run``, ``start.labels``), where it has not begun yet."""
    from ripu.labelstore import carried_images

    if own is not None and own.carried and not store.log.events:
        store.carry(own.carried, carried_images(store.images, own, None, num_rounds=0))


# --------------------------------------------------------------------------------------------------------------- logits


class LogitSource:
    """Logits of the target images of a run: computed once where they can be kept.

    They are kept in a folder where one is named (:meth:`keep_in`), else in memory where they fit, else not at all.
    """

    def __init__(self, module: Any, datamodule: RipuDataModule, device: torch.device, num_classes: int) -> None:
        """Compute logits with a module on a device, and read images through a data module."""
        self._module = module
        self._data = datamodule
        self.device = device
        height, width = datamodule.target_size
        self._images = list(range(len(datamodule.target)))
        # An estimate: networks whose output is smaller need less.
        self._fits = 4 * num_classes * height * width * len(self._images) <= MEMORY_BYTES
        self._memory: dict[int, Tensor] = {}
        self._faults: dict[int, Fault] = {}
        self._folder: Path | None = None

    def keep_in(self, folder: Path, checkpoint: str) -> None:
        """Keep logits in a folder, one ``.npy`` an image, float16; use those that are there already.

        Args:
            folder: Made where it is missing.
            checkpoint: A digest of the weights.

        Raises:
            ConfigError: The folder holds logits of other weights, images or size.
        """
        ids = "\n".join(scene.image_id for scene in self._data.target.scenes)
        facts = {
            "checkpoint_sha256": checkpoint,
            "target_size": list(self._data.target_size),
            "image_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        }
        record = folder / "cache.json"
        if record.exists():
            try:
                before = read_json(record)
            except UntrustedError as error:
                raise build.ConfigError(f"cache={folder}: {error}; remove the folder, or name another") from error
            differs = [key for key in facts if not isinstance(before, dict) or before.get(key) != facts[key]]
            if differs:
                raise build.ConfigError(
                    f"cache={folder} holds logits of another {', '.join(differs)}; name another folder"
                )
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(facts, indent=1) + "\n")
        self._folder = folder

    def network(self, image: Tensor) -> Tensor:
        """Logits of raw images."""
        logits: Tensor = self._module(image)
        return logits

    def pool(self, *, with_images: bool) -> Callable[[list[int]], Any]:
        """A maker of loaders for :meth:`ripu.selection.engine.SelectionEngine.run`.

        Args:
            with_images: Whether batches must hold the images where their logits are known.
        """
        if self._folder is None and not self._fits:
            return self._data.pool_loader
        self._fill()

        def loader(indices: list[int]) -> Any:
            from torch.utils.data import DataLoader

            images = self._data.pool_loader(indices)
            known = _KnownLogits(images.dataset, indices, self._folder, self._memory, self._faults, with_images)
            return DataLoader(
                known,  # type: ignore[arg-type]
                images.batch_size,
                num_workers=images.num_workers if self._folder else 0,
                collate_fn=images.collate_fn,
            )

        return loader

    def _fill(self) -> None:
        """Compute what is not known yet; images that cannot be read are noted, and not tried again."""
        missing = [
            image
            for image in self._images
            if image not in self._faults
            and (image not in self._memory if self._folder is None else not _file(self._folder, image).exists())
        ]
        if not missing:
            return
        # Whole batches as in a round, so that an image is in the same one whatever is missing.
        size = self._data.eval_batch
        wanted = {image // size for image in missing}
        images = [image for image in self._images if image // size in wanted]
        numbers = {self._data.target.scenes[image].image_id: image for image in missing}
        show, done = Progress("logits", len(images)), 0
        for batch in self._data.pool_loader(images):
            faults = batch.get("fault", ())
            self._faults |= {numbers[one.image_id]: one for one in faults if one.image_id in numbers}
            if batch["index"]:
                self._keep(batch)
            done += len(batch["index"]) + len(faults)
            show(done)

    def _keep(self, batch: Mapping[str, Any]) -> None:
        """Compute the logits of a batch, and keep them."""
        import numpy as np
        import torch

        with torch.no_grad():
            logits = self._module(batch["image"].to(self.device)).cpu()
        for image, one in zip(batch["index"], logits, strict=True):
            if self._folder is None:
                self._memory[image] = one.clone()
                continue
            file = _file(self._folder, image)
            temporary = file.with_suffix(".tmp")
            with open(temporary, "wb") as handle:
                np.save(handle, one.to(torch.float16).numpy())
            os.replace(temporary, file)


def _file(folder: Path, image: int) -> Path:
    return folder / f"{image:06d}.npy"


@dataclass(frozen=True)
class _KnownLogits:
    """A data set of logits that were computed before, with the images where they are needed."""

    images: Any
    indices: Sequence[int]
    folder: Path | None
    memory: Mapping[int, Tensor]
    faults: Mapping[int, Fault]
    with_images: bool

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, Any]:
        import torch

        index = self.indices[item]
        if index in self.faults:  # left out when samples are put together, where it needs the keys of the others
            return {"index": index, "image": torch.empty(0), "logits": torch.empty(0), "fault": self.faults[index]}
        sample = self.images[item] if self.with_images else {"index": index, "image": torch.empty(0)}
        if self.folder is None:
            return {**sample, "logits": self.memory[index]}
        path = _file(self.folder, index)
        try:
            logits = read_array(path, "number", 3, most_bytes=1 << 32)
        except UntrustedError as error:
            raise build.ConfigError(f"cache={self.folder}: {error}; remove it, and it is computed again") from error
        return {**sample, "logits": torch.from_numpy(logits).float()}


# ----------------------------------------------------------------------------------------------------------- comparison


def compare(stores: Mapping[str, LabelStore], scenes: SceneDataset, num_rounds: int) -> dict[str, Any]:
    """What label stores of the same images ask for, against the truth and against each other.

    Args:
        stores: Label stores by name.
        scenes: The images with their labels; those without one count in the overlap alone.
        num_rounds: Rounds that count; all of a store that has fewer.

    Returns:
        ``asked``: by name ``asked_fraction`` of all pixels, ``void_fraction`` of what was asked, ``class_shares`` of
        what was revealed without void, ``classes_per_image`` (mean number of classes revealed in an image);
        ``truth``: the same of all pixels; ``overlap``: by name and other name the share of the former's pixels that the
        latter asks about too (null where it asks about none).
    """
    import numpy as np

    names = list(stores)
    num_classes = scenes.taxonomy.num_classes
    counts = {name: np.zeros(256, dtype=np.int64) for name in (*names, "truth")}
    kinds = dict.fromkeys((*names, "truth"), 0)
    both = np.zeros((len(names), len(names)), dtype=np.int64)
    total = labelled = 0
    for index, scene in enumerate(scenes.scenes):
        masks = [
            store.asked_mask(scene.image_id, min(num_rounds, store.num_rounds), with_carried=False).reshape(-1)
            for store in stores.values()
        ]
        total += masks[0].size
        flat = np.stack(masks).astype(np.float64)
        both += np.rint(flat @ flat.T).astype(np.int64)
        if scene.label is None:
            continue
        labelled += 1
        truth = scenes.read_label(index).reshape(-1)
        for name, part in (("truth", truth), *((name, truth[mask]) for name, mask in zip(names, masks, strict=True))):
            here = np.bincount(part, minlength=256)
            counts[name] += here
            kinds[name] += int((here[:num_classes] > 0).sum())

    def facts(name: str, pixels: int) -> dict[str, Any]:
        known, revealed = int(counts[name].sum()), int(counts[name][:num_classes].sum())
        return {
            "asked_fraction": pixels / total,
            "void_fraction": 1.0 - revealed / known if known else None,
            "classes_per_image": kinds[name] / labelled if labelled else None,
            "class_shares": {
                one: int(counts[name][number]) / revealed if revealed else None
                for number, one in enumerate(scenes.taxonomy.class_names)
            },
        }

    return {
        "truth": facts("truth", total),
        "asked": {name: facts(name, int(both[number, number])) for number, name in enumerate(names)},
        "overlap": {
            name: {
                other: float(both[row, column] / both[row, row]) if both[row, row] else None
                for column, other in enumerate(names)
                if column != row
            }
            for row, name in enumerate(names)
        },
    }


def summary(results: Mapping[str, Any]) -> str:
    """The table of a replay: what each score reveals, and what they have in common."""
    columns = {"truth": results["truth"], **results["asked"]}
    width = max(8, *(len(name) + 2 for name in columns))

    def line(name: str, cells: Sequence[str]) -> str:
        return f"{name:<24}" + "".join(f"{cell:>{width}}" for cell in cells)

    def percent(value: float | None, digits: int = 2) -> str:
        return "-" if value is None else f"{100 * value:.{digits}f}"

    lines = [line("", list(columns))]
    lines.append(line("pixels asked (%)", [percent(one["asked_fraction"]) for one in columns.values()]))
    lines.append(line("of these void (%)", [percent(one["void_fraction"]) for one in columns.values()]))
    kinds = [one["classes_per_image"] for one in columns.values()]
    lines.append(line("classes an image", ["-" if kind is None else f"{kind:.1f}" for kind in kinds]))
    lines.append("class shares without void (%)")
    for name in results["truth"]["class_shares"]:
        lines.append(line(f"  {name}", [percent(one["class_shares"][name], 1) for one in columns.values()]))
    overlap = results["overlap"]
    if len(overlap) > 1:
        lines += ["", line("also asked by (%)", ["", *overlap])]
        for name, row in overlap.items():
            lines.append(line(f"  of {name}", ["", *(percent(row[one], 1) if one in row else "" for one in overlap)]))
    return "\n".join(lines)


@command("replay")
def main(cfg: DictConfig) -> None:
    """The command line."""
    from hydra.core.hydra_config import HydraConfig

    with open_dict(cfg):
        cfg.paths.output_dir = HydraConfig.get().runtime.output_dir  # a job of a multirun has a folder of its own
    build.quiet_libraries()
    try:
        replay(cfg)
    except Exception as error:
        build.explain(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
