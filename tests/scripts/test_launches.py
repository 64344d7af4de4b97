"""The count of launches: it needs no GPU, and the numbers do not depend on the size of the image."""

from __future__ import annotations

import subprocess
import sys

import pytest

from running import ROOT, environment


def launches(*words: str) -> str:
    """Run the script in a process of its own: in this one, the kernels may be interpreted."""
    pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
    command = [sys.executable, "scripts/launches.py", *words]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True).stdout


def test_help_says_what_is_counted() -> None:
    text = launches("--help")
    assert "every kernel replaced by a counter" in text
    assert "--size HEIGHT WIDTH" in text


def test_a_small_image_takes_the_launches_of_a_large_one() -> None:
    first, least, *lines = launches("--size", "50", "70").splitlines()
    assert first == "one image of 50 x 70, 19 classes, logits at 5/8 of it in float32"
    assert least.startswith("T0: 2 operations of torch, ")
    counts = [line.split(": ", 2) for line in lines if not line.startswith(" ")]
    assert [(mode.split(",")[0], kind) for mode, kind, _ in counts] == [
        *(("RA", "maps"), ("RA", "picks")),
        *(("RA", "maps"), ("RA", "picks")),
        *(("PA", "maps"), ("PA", "picks")),
    ]
    kernels = [count.split(" kernels")[0] for *_, count in counts]
    assert kernels == ["3", "4", "5", "4", "5", "4"]
    assert all(" 1 transfers" in count for _, kind, count in counts if kind == "picks")
    assert lines[1].strip() == "1 broken_kernel, 1 entropy_and_label_kernel, 1 small_windows_kernel, 1 torch.zeros"
