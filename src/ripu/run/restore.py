"""Networks that were trained before: their checkpoints found, read and rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.config.spec import RunSpec, make_spec
from ripu.config.targets import accept_stored
from ripu.io.errors import ConfigError

if TYPE_CHECKING:  # torch takes long to import: only when something is read
    from ripu.datamodule import RipuDataModule
    from ripu.datasets.scenes import SceneDataset
    from ripu.module import RipuModule


def checkpoint_path(given: str) -> Path:
    """Return the checkpoint file that a user names: a file, or the folder of a run (then its final one).

    Of a folder that ``ripu.export`` has written, its file of weights.
    """
    path = Path(given)
    if path.is_dir():
        exported = path / "model.safetensors"
        path = exported if exported.exists() else path / "checkpoints" / "final.ckpt"
    if not path.exists():
        raise ConfigError(f"checkpoint={given}: {path} does not exist; name a .ckpt file or a finished run")
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ``ripu.train``, whose configuration may name no code but networks.

    Raises:
        ConfigError: The file is damaged, or was not written by ``ripu.train``.
    """
    from ripu.models.checkpoints import read_run_checkpoint

    stored = read_run_checkpoint(path)
    stored["hyper_parameters"]["config"] = accept_stored(stored["hyper_parameters"]["config"], path)
    return stored


def restored_spec(stored: Mapping[str, Any], data_root: str | None = None) -> RunSpec:
    """Return the run that wrote a checkpoint (see :func:`read_checkpoint`), with another data root if one is given."""
    return make_spec(with_data_root(stored["hyper_parameters"]["config"], data_root))


def restored_module(spec: RunSpec, stored: Mapping[str, Any], *, is_trained_on: bool = False) -> RipuModule:
    """Return the module of a checkpoint, to repeat a step or to use the network: with an average, its weights."""
    from ripu.models.average import averaged_weights
    from ripu.run.assembly.network import make_module

    state = stored["state_dict"]
    if not is_trained_on:
        spec, state = replace(spec, average_decay=None), averaged_weights(state)
    module = make_module(spec, is_fresh=False)
    module.load_state_dict(state)
    return module


def restore(path: Path) -> tuple[RunSpec, RipuModule]:
    """Read the run and the module, with its weights, from a checkpoint; see :func:`read_checkpoint`."""
    stored = read_checkpoint(path)
    spec = restored_spec(stored)
    return spec, restored_module(spec, stored)


def with_data_root(config: Mapping[str, Any], data_root: str | None) -> Mapping[str, Any]:
    """Return a stored configuration with another data root, if given, wherever the old one begins a path of data.

    Raises:
        ConfigError: It begins none, e.g. since ``dataset.root`` of the user's own data is an absolute path.
    """
    if data_root is None:
        return config
    old = str(config["paths"]["data_root"])

    def moved(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {key: moved(value) for key, value in node.items()}
        if isinstance(node, list):
            return [moved(value) for value in node]
        if isinstance(node, str) and (node == old or node.startswith(f"{old}/")):
            return data_root + node[len(old) :]
        return node

    dataset = moved(config["dataset"])
    if dataset == config["dataset"] and data_root != old:
        raise ConfigError(
            f"the data root {data_root} has no effect: no path of the run's data begins with its own, {old}; move the "
            "data back, or put a link to them there (a dataset.root that begins with ${paths.data_root} can be moved)"
        )
    return {**config, "dataset": dataset, "paths": {**config["paths"], "data_root": data_root}}


def make_reader(
    spec: RunSpec,
    target: SceneDataset,
    val: SceneDataset,
    num_workers: int,
    batch: int,
    source: SceneDataset | None = None,
) -> RipuDataModule:
    """Make a data module that only reads whole images, ``batch`` at a time: of a pool, an evaluation and a source."""
    from ripu.datamodule import RipuDataModule

    return RipuDataModule(
        source,
        target,
        val,
        plan=spec.plan,
        seed=spec.seed,
        source_size=spec.data.source_size,
        target_size=spec.data.target_size,
        source_batch=1,
        target_batch=1,
        uses_target=False,
        store=None,
        num_workers=num_workers,
        eval_batch=batch,
    )
