"""The peak memory of this process, for one run at a time."""

from __future__ import annotations

import re
import sys
from pathlib import Path

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # the value of clear_refs that resets the peak, see proc_pid_clear_refs(5)


class _Peak:
    """The state of the peak of this process."""

    has_begun = False  # a run has begun in this process
    is_of_another = False  # the peak may be that of an earlier run


def begin_process_peak() -> None:
    """Begin the peak of this process anew, for a run that follows; it starts with the memory in use.

    Only Linux can do so. On other systems, the first run of a process has a peak and later ones have none.
    """
    try:
        CLEAR_REFS.write_text(_RESET_PEAK, "ascii")
        _Peak.is_of_another = False
    except OSError:  # another system, or a container without it
        _Peak.is_of_another = _Peak.has_begun
    _Peak.has_begun = True


def process_peak_gib() -> float | None:
    """Return the largest resident memory of this process since its run began, in GiB.

    Without :func:`begin_process_peak`, since the process began. Processes that it has started, such as data workers,
    are not counted. The value is None where the system cannot tell: on Windows, and if the peak may be that of an
    earlier run in this process.
    """
    if _Peak.is_of_another:
        return None
    try:
        # Not ru_maxrss: on Linux it begins with the peak of the process that started this one.
        if found := re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text("utf-8"), re.MULTILINE):
            return int(found[1]) / 2**20
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
