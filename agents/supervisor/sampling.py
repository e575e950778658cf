"""Samples memory and CPU of agents from one walk through /proc (Linux; elsewhere nothing)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from uuid import UUID

from agents.usage import Usage

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat behind the command's name, counted from the state.
_SESSION, _UTIME, _CSTIME, _RSS = 3, 11, 14, 21
#: Smaller changes are not worth a row: an idle fleet costs nothing.
_MEMORY_STEP = 1024 * 1024
_CPU_STEP = 1.0


class Sampler:
    """Remembers the last sample of each agent, to tell rates and changes."""

    def __init__(self) -> None:
        self.last: dict[UUID, Usage] = {}
        """The newest sample of each agent, written or not."""
        self._cpu_s: dict[int, float] = {}
        self._at = 0.0
        self._written: dict[UUID, Usage] = {}
        self._fair: dict[int, int] = {}

    def sample(self, leaders: Mapping[UUID, int], now: float) -> dict[UUID, Usage]:
        """Sample agents by the pid of their first process; return what is worth writing.

        `note` says that it was written, else it is worth it the next time too.
        Each agent leads a session of its own, so the processes that it started count too.
        """
        totals = _totals(leaders.values())
        took_s = now - self._at
        self.last = {
            agent: Usage(memory, self._percent(pid, cpu_s, took_s))
            for agent, pid in leaders.items()
            for memory, cpu_s in [totals[pid]]
            if memory
        }
        self._cpu_s, self._at = {pid: cpu_s for pid, (_, cpu_s) in totals.items()}, now
        self._fair = {}
        return {agent: use for agent, use in self.last.items() if self._is_news(agent, use)}

    def note(self, written: Mapping[UUID, Usage]) -> None:
        """Take note of what was written."""
        self._written |= written

    def memory(self, agent: UUID, leader: int | None, most: int | None) -> int:
        """Return the bytes that an agent used at the last sample, to be held against `most`.

        What its processes share counts once as soon as it matters: resident bytes count it in
        each of them.
        """
        used = self.last.get(agent)
        if used is None or leader is None or most is None or used.memory <= most:
            return used.memory if used else 0
        if leader not in self._fair:
            self._fair[leader] = sum(map(_proportional, _session(leader)))
        return self._fair[leader] or used.memory

    def forget(self, agent: UUID) -> None:
        """Take note that the agent's process has ended."""
        self.last.pop(agent, None)
        self._written.pop(agent, None)

    def _percent(self, pid: int, cpu_s: float, took_s: float) -> float:
        before = self._cpu_s.get(pid)
        if before is None or took_s <= 0:
            return 0.0
        # Programs that ended without being waited for take their share with them.
        return max(0.0, cpu_s - before) / took_s * 100

    def _is_news(self, agent: UUID, use: Usage) -> bool:
        old = self._written.get(agent)
        return (
            old is None
            or abs(use.memory - old.memory) >= _MEMORY_STEP
            or abs(use.cpu_percent - old.cpu_percent) >= _CPU_STEP
        )


def _session(leader: int) -> list[int]:
    found = []
    for name in _pids():
        with contextlib.suppress(OSError):
            if os.getsid(int(name)) == leader:
                found.append(int(name))
    return found


def _proportional(pid: int) -> int:
    """Return the bytes of a process, with its part of what it shares; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            [line] = [line for line in file if line.startswith(b"Pss:")]
    except (OSError, ValueError):
        return 0
    return int(line.split()[1]) * 1024


def _pids() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:  # no /proc, or no descriptor left
        return []


def _totals(leaders: Iterable[int]) -> dict[int, tuple[int, float]]:
    """Return resident bytes and CPU seconds for each leader's session."""
    found = dict.fromkeys(leaders, (0, 0.0))
    for name in _pids():
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        leader = int(fields[_SESSION])
        if leader in found:
            memory, cpu_s = found[leader]
            ticks = sum(map(int, fields[_UTIME : _CSTIME + 1]))
            found[leader] = (memory + int(fields[_RSS]) * _PAGE, cpu_s + ticks / _TICKS_PER_S)
    return found
