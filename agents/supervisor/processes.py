"""What the operating system offers to keep children from outliving their parents."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Mapping

import psutil

#: Environment variable of all that a supervisor started: whose it is, and of which session.
MARK = "OPSCORE_STARTED_BY"
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
# Loaded before any fork: between fork and exec nothing may be imported or looked up.
#: The controller's end of a link, of a pipe, and the log file.
_FILES_PER_AGENT = 3
#: For everything else: database, broker, zygote, Python's own files, an order on its way.
_OTHER_FILES = 100
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _prctl(option: int, argument: object) -> None:
    if _LIBC is not None:
        _LIBC.prctl(option, argument, 0, 0, 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere nothing)."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def show_name(name: str) -> None:
    """Show `name` (15 bytes of it) for this process in ps and top (Linux)."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


def allow_open_files(count: int | None = None) -> int:
    """Let this process have so many descriptors, None: as many as its account may have.

    Returns how many it could have before. 0 changes nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count != 0:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard if count is None else count, hard))
    return soft


def most_agents() -> int | None:
    """Return how many agents this process can watch with its descriptors; None: any number."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return None
    return max(files - _OTHER_FILES, 0) // _FILES_PER_AGENT


def kill_group(pid: int) -> None:
    """Kill a process and its process group at once, if they still exist."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def kill_strays() -> list[int]:
    """Kill and reap all children of this process, adopted ones too, until none is left."""
    return _kill_children(lambda _: True)


def kill_orphans_of(ended: Mapping[int, str], known: Iterable[int]) -> list[int]:
    """Kill and reap what agents that ended have left to this process: pid -> mark of each agent.

    Their orphans are those in their sessions (setsid) and those with their marks. Others belong
    to `known` agents that live and may need them.
    """
    keep, marks = set(known), set(ended.values()) - {""}

    def is_theirs(child: psutil.Process) -> bool:
        if child.pid in keep:
            return False
        return _session_of(child.pid) in ended or _mark(child) in marks

    return _kill_children(is_theirs)


def _kill_children(is_one: Callable[[psutil.Process], bool]) -> list[int]:
    # The children of one that is killed become ours in their turn.
    killed: list[int] = []
    while strays := [child.pid for child in psutil.Process().children() if is_one(child)]:
        for pid in strays:
            kill_group(pid)
            _reap(pid)
        killed += strays
    return killed


def mark_of(host: str, var_dir: str, session_id: str = "") -> str:
    """Return what marks, in their environment, the processes of a supervisor and one session."""
    return f"{host}:{os.path.realpath(var_dir)}:{session_id}"


def end_leftovers(host: str, var_dir: str) -> list[int]:
    """Kill what an earlier supervisor of this host left: it and its zygote were killed at once.

    Their agents die with them; programs that those had started are found by their environment.
    """
    mark = mark_of(host, var_dir)
    left = [found.pid for found in psutil.process_iter() if _mark(found).startswith(mark)]
    for pid in left:
        kill_group(pid)
    return left


def _mark(process: psutil.Process) -> str:
    try:
        return process.environ().get(MARK, "")
    except (psutil.Error, OSError):
        return ""


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return
