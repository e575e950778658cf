"""What the operating system offers to keep children from outliving their parents."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable

import psutil

#: Environment variable of a program that a supervisor started: whose it is.
MARK = "OPSCORE_STARTED_BY"
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
# Loaded before any fork: between fork and exec nothing may be imported or looked up.
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


def kill_group(pid: int) -> None:
    """Kill a process and its process group at once, if they still exist."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def kill_strays(known: Iterable[int]) -> list[int]:
    """Kill and reap this process's children that are not `known`: orphans that it adopted.

    Orphans in the session of a known process are left: their agent may still need them. A
    stray's own children become strays in their turn, so this goes on until none is left.
    """
    keep = set(known)
    killed: list[int] = []
    while strays := [
        child.pid
        for child in psutil.Process().children()
        # A fresh fork is in our own session for a moment.
        if child.pid not in keep and _session_of(child.pid) not in keep
    ]:
        for pid in strays:
            kill_group(pid)
            _reap(pid)
        killed += strays
    return killed


def mark_of(host: str, var_dir: str) -> str:
    """Return what marks the programs of one supervisor in their environment."""
    return f"{host}:{os.path.realpath(var_dir)}"


def end_leftovers(host: str, var_dir: str) -> list[int]:
    """Kill what an earlier supervisor of this host left: it and its zygote were killed at once.

    Their agents die with them; programs that those had started are found by their environment.
    """
    mark = mark_of(host, var_dir)
    left = [found.pid for found in psutil.process_iter() if _has_mark(found, mark)]
    for pid in left:
        kill_group(pid)
    return left


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


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
