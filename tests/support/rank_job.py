"""Trainings one after the other in each process of one group: ``python -m rank_job JOBS``.

The JSON file ``JOBS`` is a list of ``{"words": overrides, "fails_at": step or null, "killed": bool}``: the step at
which all processes fail, or are killed. Starting processes is most of the time of a short run, and there is one group.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_group(jobs: Sequence[dict[str, Any]], folder: Path, world_size: int = 2) -> list[int]:
    """Carry out jobs in a group of processes; return their exit statuses, with their output in ``folder``/RANK.log."""
    import forks
    from running import command, environment

    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in map(str, range(world_size)):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(world_size), "GROUP_RANK": "0"}
        there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
        with (folder / f"{rank}.log").open("w") as log:
            env = environment(**ranks, **there)
            processes.append(forks.start(command("rank_job", str(path)), cwd=folder, env=env, stdout=log, stderr=log))
    try:
        return [process.wait(1200) for process in processes]
    finally:
        for process in processes:
            process.kill()


def main(jobs: Sequence[dict[str, Any]]) -> None:
    """Carry out the part of this process."""
    import torch

    from ripu.config.checks import checked_spec
    from ripu.module import RipuModule
    from ripu.train import train
    from running import compose, failing_at

    torch.set_num_threads(1)
    begin = RipuModule.on_train_batch_start

    def end_at(step: int) -> None:
        def die(self: RipuModule, *arguments: Any) -> None:
            if self.global_step == step:
                torch.distributed.barrier()
                os.kill(os.getpid(), signal.SIGKILL)
            begin(self, *arguments)

        RipuModule.on_train_batch_start = die  # type: ignore[method-assign]

    for job in jobs:
        spec, step = checked_spec(compose(*job["words"])), job["fails_at"]
        if job["killed"]:
            end_at(step)
        with contextlib.nullcontext() if step is None or job["killed"] else failing_at(step):
            train(spec)
        torch.distributed.barrier()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
