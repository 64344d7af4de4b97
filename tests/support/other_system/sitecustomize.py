"""Take away from every process what Windows lacks: modules, calls, and starting processes by fork."""

import builtins
import multiprocessing
import os

MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
CALLS = "fork forkpty sched_getaffinity mkfifo getuid geteuid getgid fchmod sysconf O_NOFOLLOW O_NONBLOCK O_DIRECTORY"
_import = builtins.__import__


def _import_as_there(name, globals=None, *rest, **more):
    if name in MODULES and str((globals or {}).get("__name__", "")).startswith("ripu"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return _import(name, globals, *rest, **more)


if os.environ.get("RIPU_TESTED_AS_OTHER_SYSTEM"):  # pytest imports this file, too, when it looks for doctests
    builtins.__import__ = _import_as_there
    for name in CALLS.split():
        if hasattr(os, name):
            delattr(os, name)
    multiprocessing.set_start_method("spawn")
