"""Resource limits of programs: set in the child by the kernel's means, explained when they hit."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
from dataclasses import dataclass

from opscore.sizes import shown_size

#: Seconds between the signal that says "time is up" and the one that nobody can ignore.
_CPU_GRACE_S = 5
_NO_MEMORY = re.compile(
    r"MemoryError|bad_alloc|out of memory|cannot allocate memory|ENOMEM", re.IGNORECASE
)
_NO_FILES = re.compile(r"Too many open files|EMFILE", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """What each process of an agent may use; None: as much as the platform itself."""

    memory: int | None = None
    """Bytes that it may allocate: RLIMIT_DATA, which does not count what is only reserved."""
    cpu_time_s: float | None = None
    open_files: int | None = None

    def apply(self) -> None:
        """Bind the present process and all that it starts; called between fork and exec."""
        if self.memory is not None:
            _bind(resource.RLIMIT_DATA, self.memory, self.memory)
        if self.cpu_time_s is not None:
            seconds = max(1, round(self.cpu_time_s))
            _bind(resource.RLIMIT_CPU, seconds, seconds + _CPU_GRACE_S)
        if self.open_files is not None:
            _bind(resource.RLIMIT_NOFILE, self.open_files, self.open_files)

    def explain(self, code: int, cpu_s: float, last_lines: str) -> str:
        """Return which limit ended a process, '' when none did. `code` as of a Popen."""
        if code == 0:
            return ""
        if self.cpu_time_s is not None and _is_out_of_time(code, cpu_s, self.cpu_time_s):
            return f"it used up its CPU time, {self.cpu_time_s:g} s (limits.cpu_time)"
        if self.memory is not None and _NO_MEMORY.search(last_lines):
            return f"it ran into its memory limit of {shown_size(self.memory)} (limits.memory)"
        if self.open_files is not None and _NO_FILES.search(last_lines):
            return f"it ran into its limit of {self.open_files} open files (limits.open_files)"
        return ""


def _is_out_of_time(code: int, cpu_s: float, most_s: float) -> bool:
    # SIGKILL is for those that ignore the first signal, and for a hundred other reasons.
    return code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu_s >= most_s)


def _bind(kind: int, soft: int, hard: int) -> None:
    """Set a limit; one that is above what this account may have becomes the highest it may."""
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (soft, hard))
