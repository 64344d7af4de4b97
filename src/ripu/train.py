"""``python -m ripu.train``: train a network and reveal labels, round by round. The main path of the package.

python -m ripu.train                               the whole method on generated street scenes
python -m ripu.train dataset=gtav mode=pa          the published task with 40 pixels an image
python -m ripu.train -m mode=ra,pa seed=0,1        a sweep
python -m ripu.train paths.output_dir=X resume=true   resume the run in X
python -m ripu.train start.run=X budget=0.05       a warm start: a new run from the network and labels of X
python -m ripu.train dataset=gtav dry_run=true     a forecast: phases, budget, disk, memory and time; nothing is kept
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from ripu.config.app import chosen, command, given_words, quiet_libraries
from ripu.config.checks import checked_spec
from ripu.config.spec import RunSpec
from ripu.io import signals
from ripu.io.console import command_line, override
from ripu.io.errors import print_error
from ripu.labelstore.cut import WaitingForAnswers
from ripu.run.assembly.data import check_data
from ripu.run.device import check_device, check_job_of_sweep, check_launcher
from ripu.run.waiting import round_to_answer


def train(spec: RunSpec) -> dict[str, Any]:
    """Carry out the run of a :func:`ripu.config.checks.checked_spec`.

    Returns:
        The content of ``results.json``; with ``dry_run``, the forecast.

    Raises:
        ValueError: Something that the user can put right, before any long work.
        WaitingForAnswers: The run has asked people, and the round is not closed.
    """
    if (number := round_to_answer(spec)) is not None:
        raise WaitingForAnswers(spec.output_dir, number)
    check_data(spec)
    check_device(spec.trainer.accelerator, devices=spec.trainer.devices)
    from ripu.run.folder import check_free
    from ripu.run.forecast import forecast
    from ripu.run.lifecycle import fit, open_run, report, test  # imports torch and Lightning

    check_launcher(spec)
    check_free(spec.output_dir, spec.config, resume=spec.resume)
    if spec.dry_run:
        return forecast(spec)
    with open_run(spec) as run:
        fit(run)
        test(run)
        return report(run)


@command("train", checked_spec)
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    quiet_libraries()
    is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    with open_dict(cfg):
        if not cfg.dry_run:  # which keeps Hydra out of that folder
            cfg.paths.output_dir = HydraConfig.get().runtime.output_dir
        elif is_sweep:
            cfg.paths.output_dir = str(Path(cfg.paths.output_dir) / HydraConfig.get().sweep.subdir)
        cfg.resume = cfg.resume or signals.is_requeued()
    signals.stop_on_sigterm()
    signals.requeue_on_sigusr1()
    began = time.time()
    folder, words, nodes = Path(cfg.paths.output_dir), given_words(), cfg.trainer.num_nodes
    try:
        spec = checked_spec(cfg, words=words, experiment=chosen("experiment"))
        if is_sweep:
            check_job_of_sweep(spec)
        train(spec)
    except (KeyboardInterrupt, SystemExit):  # Lightning's answer to Ctrl-C is SystemExit, after a checkpoint
        signals.leave()
        line = None if cfg.dry_run else resume_line(folder, words, began, nodes)
        status = signals.say_stopped(f"stopped; {line or 'nothing was begun, start again with the same command'}")
        raise SystemExit(signals.stop_status() or status) from None
    except WaitingForAnswers as waiting:
        print(f"{waiting}; then {resume_line(folder, words, nodes=nodes)}", flush=True)
        raise SystemExit(signals.WAITING) from None
    except Exception as error:
        print_error(error)
        if getattr(error, "can_resume", True) and (line := resume_line(folder, words, began, nodes)):
            print(line, file=sys.stderr)
        raise SystemExit(1) from None


def resume_line(run: Path, words: list[str], began: float = 0.0, nodes: int = 1) -> str | None:
    """Return the line with the command that resumes the run in a folder; None if none has begun since ``began``.

    On several nodes, srun or torchrun has to start the command again.
    """
    record = run / "config.yaml"
    if not record.exists() or record.stat().st_mtime < began - 1:
        return None
    again = [word for word in words if not word.startswith(("paths.output_dir=", "resume="))]
    how = "resume with" if nodes == 1 else "resume on every node as before, with"
    return f"{how}: {command_line('train', [*again, override('paths.output_dir', run), 'resume=true'])}"


if __name__ == "__main__":
    main()
