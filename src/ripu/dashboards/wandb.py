"""The Weights & Biases dashboard; no other file of the package imports wandb."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import wandb
from numpy.typing import NDArray
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment  # type: ignore[attr-defined]
from pytorch_lightning.utilities import rank_zero_only

from ripu.dashboards.boards import Picture, fitted
from ripu.io.errors import ConfigError
from ripu.io.writing import write_bytes

_log = logging.getLogger(__name__)

REACH_SECONDS = 3.0  # a server that does not answer within this time counts as unreachable
GRACE_SECONDS = 10.0  # extra time for W&B to keep its own time limit when a run ends; then its process is ended
LONGEST_SIDE = 1024  # longest side of the pictures that are sent, in pixels

_SHARE_AXIS = "al/labelled_fraction"


def has_key(base_url: str) -> bool:
    """Return True if there is a key for a server, in the environment or in the netrc file; sends nothing."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc(file).authenticators(urlparse(base_url).hostname or "") is not None
    except (OSError, NetrcParseError):
        return False


def is_reachable(base_url: str, seconds: float = REACH_SECONDS) -> bool:
    """Return True if a server answers anything in time, through the proxy if one is configured."""
    has_answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(base_url, timeout=seconds):  # noqa: S310  the user chose the address
                has_answered.set()
        except urllib.error.HTTPError:
            has_answered.set()  # a refusal is an answer
        except (OSError, ValueError):
            pass

    asking = threading.Thread(target=ask, daemon=True)  # the look-up of a name has no time limit
    asking.start()
    asking.join(seconds + 0.5)
    return has_answered.is_set()


def choose_mode(asked: str, base_url: str) -> tuple[str, str]:
    """Return the mode, and the reason if W&B has to be offline; ``WANDB_MODE`` wins over ``auto``. Takes seconds.

    Raises:
        ConfigError: ``asked`` is not ``auto``, ``online``, ``offline`` or ``disabled``.
    """
    known = ("auto", "online", "offline", "disabled")
    if asked not in known:
        raise ConfigError(f"logger.wandb.mode={asked} is not allowed; use {', '.join(known)}")
    if asked == "auto":
        asked = {"dryrun": "offline", "run": "online"}.get(given := os.environ.get("WANDB_MODE", "auto"), given)
    if asked in ("offline", "disabled"):
        return asked, ""
    if not has_key(base_url):
        return "offline", "there is no key (WANDB_API_KEY, or wandb login)"
    if not is_reachable(base_url):
        return "offline", f"{base_url} does not answer"
    return "online", ""


class WandbBoard(WandbLogger):
    """A W&B run: configuration, scalars on the right axes, pictures with masks, tables, versions of the label store.

    The id is kept in ``RUN/wandb_id``, so that a resumed run continues the same W&B run. An offline run keeps
    everything in ``RUN/wandb``, artifacts included. It needs some private names of W&B and of its logger;
    tests/dashboards/test_wandb_bridge.py fails when one disappears.
    """

    def __init__(
        self,
        save_dir: str,
        project: str,
        name: str,
        group: str,
        tags: Sequence[str] = (),
        entity: str | None = None,
        mode: str = "auto",
        keep_labels: bool = True,
        keep_checkpoints: bool = False,
        start_seconds: float = 20.0,
        finish_seconds: float = 120.0,
    ) -> None:
        """Describe the run; it starts when something is first logged.

        Args:
            save_dir: The folder of the run.
            project, name, group, tags: As in W&B; runs of one group share task, mode, setting and budget.
            entity: W&B user or team; None for the key's own.
            mode: ``auto`` (online if a key exists and the server responds), ``online``, ``offline``, ``disabled``.
            keep_labels: Keep the label store of each round as a version of an artifact.
            keep_checkpoints: Keep the final checkpoint as an artifact.
            start_seconds: Time for the server to answer at the start; after that the run is offline.
            finish_seconds: Time for uploads at the end; ``wandb sync`` uploads the rest.

        Raises:
            ConfigError: The mode does not exist.
        """
        self._folder = Path(save_dir)
        base_url = os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url)
        self._mode, reason = "disabled", ""
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._mode, reason = choose_mode(mode, base_url)
        if reason:
            _log.warning("W&B offline: %s; upload later with: %s", reason, self._upload)
        self._keeps_labels, self._keeps_checkpoints = keep_labels, keep_checkpoints
        self._axes: set[str] = {_SHARE_AXIS}
        self._reported: set[type[Exception]] = set()
        self._finish_seconds = finish_seconds
        self._data_dir = os.environ.get("WANDB_DATA_DIR")
        super().__init__(
            name=name,
            save_dir=save_dir,
            project=project,
            id=self._own_id(),
            group=group,
            entity=entity,
            tags=[str(tag)[:64] for tag in tags],
            mode=self._mode,
            settings=wandb.Settings(
                silent=True,  # this class prints instead
                init_timeout=start_seconds,
                finish_timeout=finish_seconds,
                disable_git=True,
                disable_code=True,
            ),
        )
        self._wandb_init.pop("anonymous", None)  # has no effect except a warning

    def _own_id(self) -> str:
        file = self._folder / "wandb_id"
        if file.exists() and (known := file.read_text("utf-8").strip()):
            return known
        made = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(8))
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            write_bytes(file, f"{made}\n".encode())
        return made

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; started on first use.

        Raises:
            ConfigError: W&B refuses the key, the project or the like.
        """
        if self._experiment is not None:
            return self._experiment
        # Artifacts wait for their upload in the run's folder, not in the user's.
        (self._folder / "wandb").mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_DATA_DIR"] = str((self._folder / "wandb").absolute())
        try:
            run: Any = super().experiment
            if self._mode == "online":
                # Log in a second time, now: left to the first table, hours later, a dead server would end the training.
                run._public_api()
        except wandb.errors.CommError as error:  # the server answers, but not this request
            self._experiment = None
            reason = str(error).strip().partition("\n")[0]
            _log.warning("W&B offline: %s; upload later with: %s", reason, self._upload)
            wandb.teardown()  # otherwise the stuck request delays the next attempt, too
            self._mode = self._wandb_init["mode"] = "offline"
            run = super().experiment
        except wandb.errors.Error as error:
            raise ConfigError(
                f"W&B refuses the run: {str(error).strip().splitlines()[0]}; log in again, or use "
                "logger.wandb.mode=offline"
            ) from error
        if self._mode == "online":
            print(f"W&B: {run.url}")
        # Do not ask the server whether an artifact's name is taken by another type: training would wait for the answer,
        # some 25 seconds for every table and label store once the server is mute. The names contain the run's id.
        run._assert_can_log_artifact = lambda artifact: None
        run.define_metric(_SHARE_AXIS)
        run.define_metric("al/*", step_metric=_SHARE_AXIS)
        return run

    @property
    def _upload(self) -> str:
        return f"wandb sync {self._folder / 'wandb' / 'offline-run-*'}"

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the configuration, with keys as on the command line."""
        config = params.get("config", params) if isinstance(params, Mapping) else params
        super().log_hyperparams(dict(config))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars; those of ``al/`` are drawn over the labelled share."""
        run = self.experiment
        for name in metrics:
            if name.startswith("al/") and name not in self._axes:  # of two matching patterns, either may win
                self._axes.add(name)
                with self._tolerant():
                    run.define_metric(name, step_metric=_SHARE_AXIS)
        with self._tolerant():
            super().log_metrics(metrics, step)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Log an error instead of ending the training, once for each type of error."""
        try:
            yield
        except Exception as error:
            if type(error) not in self._reported:
                self._reported.add(type(error))
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                _log.warning("W&B did not accept everything (%s); the run continues, see %s", reason, self._folder)

    def _send(self, key: str, value: Any, step: int) -> None:
        run = self.experiment
        with self._tolerant():
            run.log({key: value, "trainer/global_step": step})

    def show_pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Show images whose layers can be switched on and off."""
        self._send(key, [_image(picture) for picture in pictures], step)

    def show_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Show a table that can be sorted and filtered."""
        table = wandb.Table(columns=list(columns), allow_mixed_types=True)
        for row in rows:
            table.add_data(*(_image(cell) if isinstance(cell, Picture) else cell for cell in row))
        self._send(key, table, step)

    def show_confusion(self, key: str, counts: NDArray[np.int64], class_names: Sequence[str], step: int) -> None:
        """Show W&B's plot of a confusion matrix, made from counts."""
        rows = [
            [truth, prediction, int(counts[row, column])]
            for row, truth in enumerate(class_names)
            for column, prediction in enumerate(class_names)
        ]
        columns = ["Actual", "Predicted", "nPredictions"]
        plot = wandb.plot_table(
            data_table=wandb.Table(columns=columns, data=rows),  # type: ignore[arg-type]
            vega_spec_name="wandb/confusion_matrix/v1",
            fields={column: column for column in columns},
            string_fields={"title": "pixels"},
        )
        self._send(key, plot, step)

    def keep_labels(self, folder: Path, facts: Mapping[str, Any], step: int) -> None:
        """Add a version of the artifact ``labels-ID``."""
        if not self._keeps_labels:
            return
        run = self.experiment
        artifact = wandb.Artifact(f"labels-{run.id}", type="labels", metadata={**facts, "step": step})
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name != "lock" and not file.name.startswith("."):
                # Named after their content, rounds and answers never change: no copy is needed until they are uploaded.
                policy: Any = "immutable" if file.suffix == ".dat" else "mutable"
                artifact.add_file(str(file), name=file.name, policy=policy, skip_cache=True)
        with self._tolerant():
            run.log_artifact(artifact, aliases=[f"round-{facts['round']}", "latest"])

    def keep_checkpoint(self, file: Path, facts: Mapping[str, Any]) -> None:
        """Add the artifact ``network-ID``, if ``keep_checkpoints`` is set."""
        if not self._keeps_checkpoints:
            return
        run = self.experiment
        artifact = wandb.Artifact(f"network-{run.id}", type="model", metadata=dict(facts))
        artifact.add_file(str(file), name=file.name, policy="immutable", skip_cache=True)
        with self._tolerant():
            run.log_artifact(artifact)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close a run that failed; :meth:`finish` closes a successful one after its test."""
        if status != "success":
            self.finish(exit_code=1)

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """Close the run; the next one of a sweep starts its own.

        If W&B exceeds its own time limit, the process that uploads is ended. The end of its log, at most a block of
        32 KiB, is then lost.
        """
        if self._experiment is None:
            return
        run = self.experiment
        folder = Path(run.dir).parent

        def finish() -> None:
            with self._tolerant():
                run.finish(exit_code=exit_code)

        began = time.monotonic()
        finishing = threading.Thread(target=finish, daemon=True)
        finishing.start()
        finishing.join(self._finish_seconds + GRACE_SECONDS)
        if finishing.is_alive():
            with self._tolerant():
                service: Any = wandb.setup()._connection
                service._proc._process.terminate()
                finishing.join(GRACE_SECONDS)
                wandb.teardown()
        is_late = time.monotonic() - began >= self._finish_seconds
        self._experiment = None
        if self._data_dir is None:
            os.environ.pop("WANDB_DATA_DIR", None)
        else:
            os.environ["WANDB_DATA_DIR"] = self._data_dir
        if self._mode == "offline":
            print(f"W&B: offline run; upload with: wandb sync {folder}")
        elif is_late:
            print(f"W&B: not all was uploaded within {self._finish_seconds:g} s; upload with: wandb sync {folder}")


def _image(picture: Picture) -> Any:
    picture = fitted(picture, LONGEST_SIDE)
    masks = {
        name: {"mask_data": layer.values, "class_labels": dict(layer.names)} for name, layer in picture.layers.items()
    }
    return wandb.Image(picture.image, caption=picture.caption, masks=masks or None)
