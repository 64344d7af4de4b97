"""On a CPU, the memory of a step is used again by the next one."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from ripu.run import memory
from running import environment

STEPS = """
import resource, sys, torch
from ripu.run.memory import keep_freed_memory
torch.set_num_threads(1)
assert sys.argv[1] == "as it is" or keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    before = faults()
    tensors = [torch.ones(size * 2**18) for size in (5, 3, 9, 40)]  # megabytes
    return faults() - before
print(min(step() for _ in range(20)))
"""


def has_glibc() -> bool:
    try:
        return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    except (OSError, TypeError):  # Windows has no handle of its own process
        return False


def has_large_pages_always() -> bool:
    chosen = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return chosen.is_file() and "[always]" in chosen.read_text()


@pytest.mark.skipif(not has_glibc(), reason="needs the GNU C library, whose mallopt keeps freed memory")
@pytest.mark.skipif(has_large_pages_always(), reason="pages are huge (transparent_hugepage=always), so few are touched")
def test_a_step_hardly_touches_a_new_page() -> None:
    def faults(words: str) -> int:
        ran = subprocess.run(
            [sys.executable, "-c", STEPS, words], env=environment(), capture_output=True, text=True, check=True
        )
        return int(ran.stdout)

    assert faults("keep") < 100
    assert faults("as it is") > 3000  # of 57 megabytes in pages of 4 KB


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (OSError, TypeError, AttributeError):

        def fail(name: None, error: type[Exception] = error) -> None:
            raise error

        monkeypatch.setattr(ctypes, "CDLL", fail)
        assert memory.keep_freed_memory() is False
