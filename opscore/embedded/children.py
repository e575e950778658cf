"""Direct children that end with their parent, and what an earlier life may have left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import psutil

from opscore.exits import describe

_PR_SET_PDEATHSIG = 1
# Loaded here because nothing may be imported between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_LOG_LIMIT_BYTES = 10 * 1024 * 1024


class ChildError(Exception):
    """A process of the platform ended before it was ready; the message has its last words."""


class Account(TypedDict, total=False):
    """Under whom a child runs: arguments of Popen; empty means as this process."""

    user: int
    group: int
    extra_groups: list[int]


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    death_signal: signal.Signals,
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, its output appended to `log`.

    The kernel sends it `death_signal` when this process ends in whatever way. The signal is
    bound to the calling thread, so call this from a thread that lives as long as the process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            # A Ctrl-C in the terminal reaches the parent only, which stops them in order.
            start_new_session=True,
            preexec_fn=_end_with_parent(death_signal),  # noqa: PLW1509 - one prctl, no lock taken
            **(account or {}),
        )


def _end_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if _LIBC is None:
        return None
    libc, parent = _LIBC, os.getpid()

    def arm() -> None:  # pragma: no cover - runs between fork and exec
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:
            # The parent ended before the signal was armed: it will never come.
            os._exit(1)

    return arm


def stop(child: subprocess.Popen[bytes], sign: signal.Signals, *, grace_s: float) -> None:
    """Send `sign`, wait up to `grace_s` seconds, then kill what is left of its session."""
    try:
        if child.poll() is None:
            child.send_signal(sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace_s)
    finally:
        # Also when a second Ctrl-C cuts the wait short.
        kill_session(child)


def kill_session(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and whatever it started in its own session; reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def end_orphans(folder: Path, sign: signal.Signals, *, grace_s: float = 10.0) -> None:
    """End servers of an earlier life that still run in `folder`.

    Only the holder of the folder's lock may call this: then a process whose working
    directory it is can only be an orphan, and two servers on one data folder destroy it.
    """
    place = str(folder.resolve())
    orphans = [process for process in psutil.process_iter() if _works_in(process, place)]
    pids = {process.pid for process in orphans}
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            # A server ends its own helpers; a signal to one of them means something else.
            if process.ppid() not in pids:
                process.send_signal(sign)
    _, alive = psutil.wait_procs(orphans, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_s)


def _works_in(process: psutil.Process, place: str) -> bool:
    try:
        return process.cwd() == place and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def wait_until_ready(
    child: subprocess.Popen[bytes], name: str, log: Path, answers: Callable[[], bool]
) -> None:
    """Wait until `answers()`; no limit of time, as crash recovery may be long.

    Raises ChildError with the end of the log when the process ends first.
    """
    while not answers():
        if child.poll() is not None:
            raise ChildError(f"{name} ended with {describe(child.returncode)}. {log}:\n{tail(log)}")
        time.sleep(0.02)


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented for a message."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
